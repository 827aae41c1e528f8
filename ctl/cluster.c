/* member list, endpoint status: what the cluster is made of and what it survives. */
#include <inttypes.h>
#include <stdio.h>

#include "ctl/ctl.h"
#include "lib/base/memory.h"

static void print_members(void *ctx, const struct client_result *result)
{
    struct ctl *ctl = ctx;
    if (ctl_failed(ctl, result))
        return;
    const Etcdserverpb__MemberListResponse *r = (const void *)result->message;
    size_t voters = 0;
    for (size_t i = 0; i < r->n_members; i++) {
        const Etcdserverpb__Member *m = r->members[i];
        voters += m->islearner ? 0 : 1;
        printf("%" PRIx64 ", %s, %s, ", m->id, m->name[0] ? "started" : "unstarted", m->name);
        for (size_t k = 0; k < m->n_peerurls; k++)
            printf("%s%s", k ? "," : "", m->peerurls[k]);
        printf(", ");
        for (size_t k = 0; k < m->n_clienturls; k++)
            printf("%s%s", k ? "," : "", m->clienturls[k]);
        printf(", %s\n", m->islearner ? "true" : "false");
    }
    if (voters % 2 == 0)
        fprintf(stderr, "%zu voters survive no more failures than %zu: add or remove one\n", voters,
                voters - 1);
    ctl_finish(ctl, 0);
}

static bool run_member_list(struct ctl *ctl)
{
    if (!ctl_arguments(ctl, 0, 0))
        return false;
    Etcdserverpb__MemberListRequest r = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    client_unary(ctl->client, "/etcdserverpb.Cluster/MemberList", &r.base,
                 &etcdserverpb__member_list_response__descriptor, true, ctl->timeout_ms,
                 print_members, ctl);
    return true;
}

static void print_status(void *ctx, const struct client_result *result)
{
    struct ctl *ctl = ctx;
    if (ctl_failed(ctl, result))
        return;
    const Etcdserverpb__StatusResponse *r = (const void *)result->message;
    printf("member %" PRIx64 ", version %s, store %" PRId64 " bytes, %s, term %" PRIu64
           ", log index %" PRIu64 ", applied %" PRIu64 ", revision %" PRId64 "\n",
           r->header->member_id, r->version, r->dbsize,
           r->leader == r->header->member_id ? "leader"
           : r->leader == 0                  ? "no leader"
                                             : "follower",
           r->raftterm, r->raftindex, r->raftappliedindex, r->header->revision);
    ctl_finish(ctl, 0);
}

static bool run_status(struct ctl *ctl)
{
    if (!ctl_arguments(ctl, 0, 0))
        return false;
    Etcdserverpb__StatusRequest r = ETCDSERVERPB__STATUS_REQUEST__INIT;
    client_unary(ctl->client, "/etcdserverpb.Maintenance/Status", &r.base,
                 &etcdserverpb__status_response__descriptor, true, ctl->timeout_ms, print_status,
                 ctl);
    return true;
}

const struct ctl_command ctl_cluster_commands[] = {
    {"member list", "", "lists the members", run_member_list},
    {"endpoint status", "", "shows the state of the first endpoint that answers", run_status},
};
const size_t ctl_cluster_command_count = ARRAY_LEN(ctl_cluster_commands);
