/* member list, add, remove, update, promote. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/ctl.h"
#include "lib/base/memory.h"

#define URLS_MAX 16

static const char *status_of(const Etcdserverpb__Member *m)
{
    return m->name[0] ? "started" : "unstarted";
}

static char *joined(char *const *texts, size_t n)
{
    struct buf b = {0};
    for (size_t i = 0; i < n; i++)
        buf_printf(&b, "%s%s", i ? "," : "", texts[i]);
    char *s = (char *)bytes_dup(buf_bytes(&b));
    buf_free(&b);
    return s;
}

/* ---- list ---------------------------------------------------------------------------------------- */

static void print_table(const Etcdserverpb__MemberListResponse *r)
{
    static const char *const headers[] = {"ID",         "STATUS",       "NAME",
                                          "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"};
    struct ctl_table t = {.headers = headers, .columns = ARRAY_LEN(headers)};
    for (size_t i = 0; i < r->n_members; i++) {
        const Etcdserverpb__Member *m = r->members[i];
        ctl_table_add(&t, xasprintf("%" PRIx64, m->id));
        ctl_table_add(&t, xstrdup(status_of(m)));
        ctl_table_add(&t, xstrdup(m->name));
        ctl_table_add(&t, joined(m->peerurls, m->n_peerurls));
        ctl_table_add(&t, joined(m->clienturls, m->n_clienturls));
        ctl_table_add(&t, xstrdup(m->islearner ? "true" : "false"));
    }
    ctl_table_print(&t);
}

static void print_simple(const Etcdserverpb__MemberListResponse *r)
{
    for (size_t i = 0; i < r->n_members; i++) {
        const Etcdserverpb__Member *m = r->members[i];
        char *peers = joined(m->peerurls, m->n_peerurls);
        char *clients = joined(m->clienturls, m->n_clienturls);
        printf("%" PRIx64 ", %s, %s, %s, %s, %s\n", m->id, status_of(m), m->name, peers, clients,
               m->islearner ? "true" : "false");
        free(peers);
        free(clients);
    }
}

static void print_fields(const Etcdserverpb__MemberListResponse *r)
{
    printf("\"ClusterID\" : %" PRIu64 "\n\"MemberID\" : %" PRIu64 "\n\"Revision\" : %" PRId64
           "\n\"RaftTerm\" : %" PRIu64 "\n",
           r->header->cluster_id, r->header->member_id, r->header->revision, r->header->raft_term);
    for (size_t i = 0; i < r->n_members; i++) {
        const Etcdserverpb__Member *m = r->members[i];
        printf("\"ID\" : %" PRIu64 "\n\"Name\" : \"%s\"\n", m->id, m->name);
        for (size_t k = 0; k < m->n_peerurls; k++)
            printf("\"PeerURL\" : \"%s\"\n", m->peerurls[k]);
        for (size_t k = 0; k < m->n_clienturls; k++)
            printf("\"ClientURL\" : \"%s\"\n", m->clienturls[k]);
        printf("\"IsLearner\" : %s\n\n", m->islearner ? "true" : "false");
    }
}

static void warn_if_even(const Etcdserverpb__MemberListResponse *r)
{
    size_t voters = 0;
    for (size_t i = 0; i < r->n_members; i++)
        voters += r->members[i]->islearner ? 0 : 1;
    if (voters > 0 && voters % 2 == 0)
        fprintf(stderr, "%zu voters survive no more failures than %zu: add or remove one\n", voters,
                voters - 1);
}

static bool run_list(struct ctl *ctl)
{
    if (!ctl_arguments(ctl, 0, 0))
        return false;
    Etcdserverpb__MemberListRequest r = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    struct ctl_answer a;
    ctl_ask(ctl, ctl->client, "/etcdserverpb.Cluster/MemberList", &r.base,
            &etcdserverpb__member_list_response__descriptor, true, &a);
    const Etcdserverpb__MemberListResponse *list = (const void *)a.message;
    if (!ctl_answer_failed(ctl, &a)) {
        if (ctl->output == CTL_JSON)
            ctl_print_json(a.message);
        else if (ctl->output == CTL_TABLE)
            print_table(list);
        else if (ctl->output == CTL_FIELDS)
            print_fields(list);
        else
            print_simple(list);
        warn_if_even(list);
        ctl_finish(ctl, 0);
    }
    ctl_answer_free(&a);
    return true;
}

/* ---- changes ------------------------------------------------------------------------------------- */

/* Asks for a change and prints the answer; false: that has been an error. */
static bool change(struct ctl *ctl, const char *method, const ProtobufCMessage *request,
                   const ProtobufCMessageDescriptor *response, struct ctl_answer *ret_answer)
{
    char *path = xasprintf("/etcdserverpb.Cluster/%s", method);
    ctl_ask(ctl, ctl->client, path, request, response, false, ret_answer);
    free(path);
    if (ctl_answer_failed(ctl, ret_answer))
        return false;
    if (ctl->output == CTL_JSON)
        ctl_print_json(ret_answer->message);
    ctl_finish(ctl, 0);
    return ctl->output == CTL_SIMPLE;
}

static bool read_id(struct ctl *ctl, uint64_t *ret_id)
{
    char *end;
    *ret_id = strtoull(ctl->argv[0], &end, 16);
    if (*ctl->argv[0] != 0 && *end == 0)
        return true;
    ctl_usage(ctl, "%s is not a member id (hexadecimal; member list has them)", ctl->argv[0]);
    return false;
}

/* --peer-urls URL,URL; the texts point into *ret_list, which the caller frees. */
static size_t read_urls(struct ctl *ctl, char *urls[URLS_MAX], char **ret_list)
{
    const char *text = "";
    size_t count = 0;
    char *save;
    ctl_flag(ctl, "peer-urls", &text);
    *ret_list = xstrdup(text);
    for (char *url = strtok_r(*ret_list, ",", &save); url && count < URLS_MAX;
         url = strtok_r(NULL, ",", &save))
        urls[count++] = url;
    if (count == 0)
        ctl_usage(ctl, "member peer urls not provided (--peer-urls)");
    return count;
}

/* What the new member is to be started with, for the shell: quorumd's variables. */
static void print_added(const Etcdserverpb__MemberAddResponse *r, const char *name)
{
    printf("Member %16" PRIx64 " added to cluster %16" PRIx64 "\n\n", r->member->id,
           r->header->cluster_id);
    printf("QUORUMD_NAME=\"%s\"\nQUORUMD_INITIAL_CLUSTER=\"", name);
    const char *separator = "";
    for (size_t i = 0; i < r->n_members; i++) {
        const Etcdserverpb__Member *m = r->members[i];
        for (size_t k = 0; k < m->n_peerurls; k++) {
            printf("%s%s=%s", separator, m->id == r->member->id ? name : m->name, m->peerurls[k]);
            separator = ",";
        }
    }
    char *urls = joined(r->member->peerurls, r->member->n_peerurls);
    printf("\"\nQUORUMD_INITIAL_ADVERTISE_PEER_URLS=\"%s\"\n"
           "QUORUMD_INITIAL_CLUSTER_STATE=\"existing\"\n",
           urls);
    free(urls);
}

static bool run_add(struct ctl *ctl)
{
    char *urls[URLS_MAX], *list;
    Etcdserverpb__MemberAddRequest r = ETCDSERVERPB__MEMBER_ADD_REQUEST__INIT;
    struct ctl_answer a = {0};
    r.islearner = ctl_flag(ctl, "learner", NULL);
    r.n_peerurls = read_urls(ctl, urls, &list);
    r.peerurls = urls;
    bool ok = r.n_peerurls > 0 && ctl_arguments(ctl, 1, 1) && ctl_prints(ctl, false, false);
    if (ok && change(ctl, "MemberAdd", &r.base, &etcdserverpb__member_add_response__descriptor, &a))
        print_added((const void *)a.message, ctl->argv[0]);
    ctl_answer_free(&a);
    free(list);
    return ok;
}

static bool run_remove(struct ctl *ctl)
{
    Etcdserverpb__MemberRemoveRequest r = ETCDSERVERPB__MEMBER_REMOVE_REQUEST__INIT;
    struct ctl_answer a = {0};
    if (!ctl_arguments(ctl, 1, 1) || !read_id(ctl, &r.id) || !ctl_prints(ctl, false, false))
        return false;
    if (change(ctl, "MemberRemove", &r.base, &etcdserverpb__member_remove_response__descriptor, &a))
        printf("Member %16" PRIx64 " removed from cluster %16" PRIx64 "\n", r.id,
               ((const Etcdserverpb__MemberRemoveResponse *)a.message)->header->cluster_id);
    ctl_answer_free(&a);
    return true;
}

static bool run_update(struct ctl *ctl)
{
    char *urls[URLS_MAX], *list;
    Etcdserverpb__MemberUpdateRequest r = ETCDSERVERPB__MEMBER_UPDATE_REQUEST__INIT;
    struct ctl_answer a = {0};
    r.n_peerurls = read_urls(ctl, urls, &list);
    r.peerurls = urls;
    bool ok = r.n_peerurls > 0 && ctl_arguments(ctl, 1, 1) && read_id(ctl, &r.id) &&
              ctl_prints(ctl, false, false);
    if (ok &&
        change(ctl, "MemberUpdate", &r.base, &etcdserverpb__member_update_response__descriptor, &a))
        printf("Member %16" PRIx64 " updated in cluster %16" PRIx64 "\n", r.id,
               ((const Etcdserverpb__MemberUpdateResponse *)a.message)->header->cluster_id);
    ctl_answer_free(&a);
    free(list);
    return ok;
}

static bool run_promote(struct ctl *ctl)
{
    Etcdserverpb__MemberPromoteRequest r = ETCDSERVERPB__MEMBER_PROMOTE_REQUEST__INIT;
    struct ctl_answer a = {0};
    if (!ctl_arguments(ctl, 1, 1) || !read_id(ctl, &r.id) || !ctl_prints(ctl, false, false))
        return false;
    if (change(ctl, "MemberPromote", &r.base, &etcdserverpb__member_promote_response__descriptor,
               &a))
        printf("Member %16" PRIx64 " promoted in cluster %16" PRIx64 "\n", r.id,
               ((const Etcdserverpb__MemberPromoteResponse *)a.message)->header->cluster_id);
    ctl_answer_free(&a);
    return true;
}

const struct ctl_command ctl_member_commands[] = {
    {"member list", "", "lists the members", run_list},
    {"member add", "NAME --peer-urls=URL,URL [--learner]", "adds a member", run_add},
    {"member remove", "ID", "removes a member", run_remove},
    {"member update", "ID --peer-urls=URL,URL", "changes a member's peer URLs", run_update},
    {"member promote", "ID", "makes a learner a voter", run_promote},
    {0},
};
