/* alarm list, alarm disarm, compaction, defrag, move-leader. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/ctl.h"
#include "lib/base/memory.h"

/* ---- alarms -------------------------------------------------------------------------------------- */

static void print_alarm(const Etcdserverpb__AlarmMember *a)
{
    static const char *const names[] = {"NONE", "NOSPACE", "CORRUPT"};
    if (a->memberid)
        printf("memberID:%" PRIu64 " ", a->memberid);
    if (a->alarm > 0 && (size_t)a->alarm < ARRAY_LEN(names))
        printf("alarm:%s ", names[a->alarm]);
    printf("\n");
}

static void ask_alarm(struct ctl *ctl, const Etcdserverpb__AlarmRequest *r,
                      struct ctl_answer *ret_answer)
{
    ctl_ask(ctl, ctl->client, "/etcdserverpb.Maintenance/Alarm", &r->base,
            &etcdserverpb__alarm_response__descriptor, true, ret_answer);
}

static void ask_alarms(struct ctl *ctl, struct ctl_answer *ret_answer)
{
    Etcdserverpb__AlarmRequest r = ETCDSERVERPB__ALARM_REQUEST__INIT;
    r.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET;
    ask_alarm(ctl, &r, ret_answer);
}

static bool run_alarm_list(struct ctl *ctl)
{
    struct ctl_answer a;
    if (!ctl_arguments(ctl, 0, 0) || !ctl_prints(ctl, false, false))
        return false;
    ask_alarms(ctl, &a);
    if (!ctl_answer_failed(ctl, &a)) {
        const Etcdserverpb__AlarmResponse *r = (const void *)a.message;
        if (ctl->output == CTL_JSON)
            ctl_print_json(a.message);
        for (size_t i = 0; ctl->output == CTL_SIMPLE && i < r->n_alarms; i++)
            print_alarm(r->alarms[i]);
        ctl_finish(ctl, 0);
    }
    ctl_answer_free(&a);
    return true;
}

/* One after another, each by its member and kind; false: finished with an error. */
static bool disarm_each(struct ctl *ctl, const Etcdserverpb__AlarmResponse *r)
{
    for (size_t i = 0; i < r->n_alarms; i++) {
        Etcdserverpb__AlarmRequest q = ETCDSERVERPB__ALARM_REQUEST__INIT;
        struct ctl_answer a;
        q.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
        q.memberid = r->alarms[i]->memberid;
        q.alarm = r->alarms[i]->alarm;
        ask_alarm(ctl, &q, &a);
        bool failed = ctl_answer_failed(ctl, &a);
        ctl_answer_free(&a);
        if (failed)
            return false;
        if (ctl->output == CTL_SIMPLE)
            print_alarm(r->alarms[i]);
    }
    return true;
}

static bool run_alarm_disarm(struct ctl *ctl)
{
    struct ctl_answer a;
    if (!ctl_arguments(ctl, 0, 0) || !ctl_prints(ctl, false, false))
        return false;
    ask_alarms(ctl, &a);
    Etcdserverpb__AlarmResponse *r = (void *)a.message;
    if (!ctl_answer_failed(ctl, &a) && disarm_each(ctl, r)) {
        if (ctl->output == CTL_JSON)
            ctl_print_json(a.message);
        ctl_finish(ctl, 0);
    }
    ctl_answer_free(&a);
    return true;
}

/* ---- space --------------------------------------------------------------------------------------- */

static bool run_compaction(struct ctl *ctl)
{
    struct ctl_answer a;
    Etcdserverpb__CompactionRequest r = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    char *end;
    r.physical = ctl_flag(ctl, "physical", NULL);
    if (!ctl_arguments(ctl, 1, 1))
        return false;
    r.revision = strtoll(ctl->argv[0], &end, 10);
    if (*ctl->argv[0] == 0 || *end != 0) {
        ctl_usage(ctl, "%s is not a revision", ctl->argv[0]);
        return false;
    }
    ctl_ask(ctl, ctl->client, "/etcdserverpb.KV/Compact", &r.base,
            &etcdserverpb__compaction_response__descriptor, false, &a);
    if (!ctl_answer_failed(ctl, &a)) {
        printf("compacted revision %" PRId64 "\n", r.revision);
        ctl_finish(ctl, 0);
    }
    ctl_answer_free(&a);
    return true;
}

static bool run_defrag(struct ctl *ctl)
{
    bool all = true;
    if (!ctl_take_cluster_flag(ctl))
        return true;
    if (!ctl_arguments(ctl, 0, 0))
        return false;
    for (size_t i = 0; i < ctl->endpoint_count; i++) {
        Etcdserverpb__DefragmentRequest r = ETCDSERVERPB__DEFRAGMENT_REQUEST__INIT;
        struct ctl_answer a;
        struct client *c = ctl_connect(ctl, &ctl->endpoints[i], 1);
        if (!c)
            return false;
        ctl_ask(ctl, c, "/etcdserverpb.Maintenance/Defragment", &r.base,
                &etcdserverpb__defragment_response__descriptor, true, &a);
        client_free(c);
        if (a.code == ERR_OK)
            printf("Finished defragmenting etcd member[%s]\n", ctl->endpoints[i]);
        else
            fprintf(stderr, "Failed to defragment etcd member[%s] (%s)\n", ctl->endpoints[i],
                    a.text);
        all = all && a.code == ERR_OK;
        ctl_answer_free(&a);
    }
    ctl_finish(ctl, all ? 0 : 1);
    return true;
}

/* ---- leadership ---------------------------------------------------------------------------------- */

/* The endpoint that leads; NULL: none of those that were given. */
static struct client *connect_leader(struct ctl *ctl, uint64_t *ret_id)
{
    for (size_t i = 0; i < ctl->endpoint_count; i++) {
        Etcdserverpb__StatusRequest r = ETCDSERVERPB__STATUS_REQUEST__INIT;
        struct ctl_answer a;
        struct client *c = ctl_connect(ctl, &ctl->endpoints[i], 1);
        if (!c)
            return NULL;
        ctl_ask(ctl, c, "/etcdserverpb.Maintenance/Status", &r.base,
                &etcdserverpb__status_response__descriptor, true, &a);
        const Etcdserverpb__StatusResponse *status = (const void *)a.message;
        bool leads = a.code == ERR_OK && status->leader == status->header->member_id;
        if (leads)
            *ret_id = status->leader;
        ctl_answer_free(&a);
        if (leads)
            return c;
        client_free(c);
    }
    return NULL;
}

static void print_no_leader(struct ctl *ctl)
{
    fprintf(stderr, "Error: no leader endpoint given at [");
    for (size_t i = 0; i < ctl->endpoint_count; i++)
        fprintf(stderr, "%s%s", i ? " " : "", ctl->endpoints[i]);
    fprintf(stderr, "]\n");
    ctl_finish(ctl, 1);
}

static bool run_move_leader(struct ctl *ctl)
{
    struct ctl_answer a;
    Etcdserverpb__MoveLeaderRequest r = ETCDSERVERPB__MOVE_LEADER_REQUEST__INIT;
    uint64_t from = 0;
    char *end;
    if (!ctl_arguments(ctl, 1, 1) || !ctl_prints(ctl, false, false))
        return false;
    r.targetid = strtoull(ctl->argv[0], &end, 16);
    if (*ctl->argv[0] == 0 || *end != 0) {
        ctl_usage(ctl, "%s is not a member id (hexadecimal; member list has them)", ctl->argv[0]);
        return false;
    }
    struct client *leader = connect_leader(ctl, &from);
    if (!leader) {
        print_no_leader(ctl);
        return true;
    }
    ctl_ask(ctl, leader, "/etcdserverpb.Maintenance/MoveLeader", &r.base,
            &etcdserverpb__move_leader_response__descriptor, false, &a);
    client_free(leader);
    if (!ctl_answer_failed(ctl, &a)) {
        if (ctl->output == CTL_JSON)
            ctl_print_json(a.message);
        else
            printf("Leadership transferred from %" PRIx64 " to %" PRIx64 "\n", from, r.targetid);
        ctl_finish(ctl, 0);
    }
    ctl_answer_free(&a);
    return true;
}

const struct ctl_command ctl_maintenance_commands[] = {
    {"alarm list", "", "shows what alarms are on", run_alarm_list},
    {"alarm disarm", "", "takes all alarms back", run_alarm_disarm},
    {"compaction", "REV [--physical]", "forgets the history before a revision", run_compaction},
    {"defrag", "[--cluster]", "gives free space back to the file system", run_defrag},
    {"move-leader", "ID", "makes another member the leader", run_move_leader},
    {0},
};
