/* endpoint status, health, hashkv: each endpoint by itself. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ctl/ctl.h"
#include "lib/base/memory.h"

/* Asks every endpoint the same; answers[i] are the caller's to free. */
static void ask_each(struct ctl *ctl, const char *path, const ProtobufCMessage *request,
                     const ProtobufCMessageDescriptor *response, struct ctl_answer *answers,
                     uint64_t *ret_took_ns)
{
    for (size_t i = 0; i < ctl->endpoint_count; i++) {
        struct timespec from, to;
        struct client *c = ctl_connect(ctl, &ctl->endpoints[i], 1);
        answers[i] = (struct ctl_answer){.code = ERR_INVALID};
        if (!c) {
            answers[i].text = xstrdup("the endpoint can't be read");
            continue;
        }
        clock_gettime(CLOCK_MONOTONIC, &from);
        ctl_ask(ctl, c, path, request, response, true, &answers[i]);
        clock_gettime(CLOCK_MONOTONIC, &to);
        if (ret_took_ns)
            ret_took_ns[i] = (uint64_t)(to.tv_sec - from.tv_sec) * 1000000000 +
                             (uint64_t)to.tv_nsec - (uint64_t)from.tv_nsec;
        client_free(c);
    }
}

static const char *yes(bool is)
{
    return is ? "true" : "false";
}

/* [{"Endpoint":..., "NAME":{...}}, ...] of those that answered. */
static void print_json(struct ctl *ctl, const struct ctl_answer *answers, const char *name)
{
    struct buf b = {0};
    const char *separator = "";
    buf_printf(&b, "[");
    for (size_t i = 0; i < ctl->endpoint_count; i++) {
        if (answers[i].code != ERR_OK)
            continue;
        buf_printf(&b, "%s{\"Endpoint\":", separator);
        ctl_json_string(&b, ctl->endpoints[i], strlen(ctl->endpoints[i]));
        buf_printf(&b, ",\"%s\":", name);
        ctl_json(&b, answers[i].message);
        buf_printf(&b, "}");
        separator = ",";
    }
    printf("%.*s]\n", (int)b.n, (const char *)b.p);
    buf_free(&b);
}

static void print_header_fields(const Etcdserverpb__ResponseHeader *h)
{
    printf("\"ClusterID\" : %" PRIu64 "\n\"MemberID\" : %" PRIu64 "\n\"Revision\" : %" PRId64
           "\n\"RaftTerm\" : %" PRIu64 "\n",
           h->cluster_id, h->member_id, h->revision, h->raft_term);
}

static void finish(struct ctl *ctl, struct ctl_answer *answers, const char *failed)
{
    bool all = true;
    for (size_t i = 0; i < ctl->endpoint_count; i++) {
        if (answers[i].code != ERR_OK) {
            fprintf(stderr, "Failed to get the %s of endpoint %s (%s)\n", failed, ctl->endpoints[i],
                    answers[i].text);
            all = false;
        }
        ctl_answer_free(&answers[i]);
    }
    ctl_finish(ctl, all ? 0 : 1);
}

/* ---- status -------------------------------------------------------------------------------------- */

static char *errors_of(const Etcdserverpb__StatusResponse *r)
{
    struct buf b = {0};
    for (size_t i = 0; i < r->n_errors; i++)
        buf_printf(&b, "%s%s", i ? ", " : "", r->errors[i]);
    char *s = (char *)bytes_dup(buf_bytes(&b));
    buf_free(&b);
    return s;
}

#define STATUS_COLUMNS 10

static void status_cells(const char *endpoint, const Etcdserverpb__StatusResponse *r,
                         char *cells[STATUS_COLUMNS])
{
    size_t n = 0;
    cells[n++] = xstrdup(endpoint);
    cells[n++] = xasprintf("%" PRIx64, r->header->member_id);
    cells[n++] = xstrdup(r->version);
    cells[n++] = ctl_size_text((uint64_t)r->dbsize);
    cells[n++] = xstrdup(yes(r->leader == r->header->member_id));
    cells[n++] = xstrdup(yes(r->islearner));
    cells[n++] = xasprintf("%" PRIu64, r->raftterm);
    cells[n++] = xasprintf("%" PRIu64, r->raftindex);
    cells[n++] = xasprintf("%" PRIu64, r->raftappliedindex);
    cells[n++] = errors_of(r);
}

static void print_status_fields(const char *endpoint, const Etcdserverpb__StatusResponse *r)
{
    print_header_fields(r->header);
    printf("\"Version\" : \"%s\"\n\"DBSize\" : %" PRId64 "\n\"Leader\" : %" PRIu64
           "\n\"IsLearner\" : %s\n\"RaftIndex\" : %" PRIu64 "\n\"RaftTerm\" : %" PRIu64
           "\n\"RaftAppliedIndex\" : %" PRIu64 "\n\"Errors\" : [",
           r->version, r->dbsize, r->leader, yes(r->islearner), r->raftindex, r->raftterm,
           r->raftappliedindex);
    for (size_t i = 0; i < r->n_errors; i++)
        printf("%s\"%s\"", i ? " " : "", r->errors[i]);
    printf("]\n\"Endpoint\" : \"%s\"\n\n", endpoint);
}

static void print_status(struct ctl *ctl, const struct ctl_answer *answers)
{
    static const char *const headers[STATUS_COLUMNS] = {
        "ENDPOINT",           "ID",         "VERSION",   "DB SIZE",
        "IS LEADER",          "IS LEARNER", "RAFT TERM", "RAFT INDEX",
        "RAFT APPLIED INDEX", "ERRORS"};
    struct ctl_table t = {.headers = headers, .columns = STATUS_COLUMNS};
    for (size_t i = 0; i < ctl->endpoint_count; i++) {
        char *cells[STATUS_COLUMNS];
        if (answers[i].code != ERR_OK)
            continue;
        const Etcdserverpb__StatusResponse *r = (const void *)answers[i].message;
        if (ctl->output == CTL_FIELDS) {
            print_status_fields(ctl->endpoints[i], r);
            continue;
        }
        status_cells(ctl->endpoints[i], r, cells);
        for (size_t k = 0; k < STATUS_COLUMNS; k++) {
            if (ctl->output == CTL_TABLE) {
                ctl_table_add(&t, cells[k]);
                continue;
            }
            printf("%s%s", k ? ", " : "", cells[k]);
            free(cells[k]);
        }
        if (ctl->output == CTL_SIMPLE)
            printf("\n");
    }
    if (ctl->output == CTL_TABLE)
        ctl_table_print(&t);
}

static bool run_status(struct ctl *ctl)
{
    struct ctl_answer answers[CLIENT_ENDPOINTS_MAX];
    Etcdserverpb__StatusRequest r = ETCDSERVERPB__STATUS_REQUEST__INIT;
    if (!ctl_take_cluster_flag(ctl))
        return true;
    if (!ctl_arguments(ctl, 0, 0))
        return false;
    ask_each(ctl, "/etcdserverpb.Maintenance/Status", &r.base,
             &etcdserverpb__status_response__descriptor, answers, NULL);
    if (ctl->output == CTL_JSON)
        print_json(ctl, answers, "Status");
    else
        print_status(ctl, answers);
    finish(ctl, answers, "status");
    return true;
}

/* ---- hashkv -------------------------------------------------------------------------------------- */

static void print_hashes(struct ctl *ctl, const struct ctl_answer *answers)
{
    static const char *const headers[] = {"ENDPOINT", "HASH"};
    struct ctl_table t = {.headers = headers, .columns = ARRAY_LEN(headers)};
    for (size_t i = 0; i < ctl->endpoint_count; i++) {
        if (answers[i].code != ERR_OK)
            continue;
        const Etcdserverpb__HashKVResponse *r = (const void *)answers[i].message;
        if (ctl->output == CTL_TABLE) {
            ctl_table_add(&t, xstrdup(ctl->endpoints[i]));
            ctl_table_add(&t, xasprintf("%u", r->hash));
        } else if (ctl->output == CTL_FIELDS) {
            print_header_fields(r->header);
            printf("\"Endpoint\" : \"%s\"\n\"Hash\" : %u\n\n", ctl->endpoints[i], r->hash);
        } else {
            printf("%s, %u\n", ctl->endpoints[i], r->hash);
        }
    }
    if (ctl->output == CTL_TABLE)
        ctl_table_print(&t);
}

static bool run_hashkv(struct ctl *ctl)
{
    struct ctl_answer answers[CLIENT_ENDPOINTS_MAX];
    Etcdserverpb__HashKVRequest r = ETCDSERVERPB__HASH_KVREQUEST__INIT;
    const char *rev = "0";
    char *end;
    ctl_flag(ctl, "rev", &rev);
    r.revision = strtoll(rev, &end, 10);
    if (*rev == 0 || *end != 0) {
        ctl_usage(ctl, "--rev %s: not a number", rev);
        return false;
    }
    if (!ctl_take_cluster_flag(ctl))
        return true;
    if (!ctl_arguments(ctl, 0, 0))
        return false;
    ask_each(ctl, "/etcdserverpb.Maintenance/HashKV", &r.base,
             &etcdserverpb__hash_kvresponse__descriptor, answers, NULL);
    if (ctl->output == CTL_JSON)
        print_json(ctl, answers, "HashKV");
    else
        print_hashes(ctl, answers);
    finish(ctl, answers, "hash");
    return true;
}

/* ---- health -------------------------------------------------------------------------------------- */

static void print_health_json(struct ctl *ctl, const struct ctl_answer *answers,
                              const uint64_t *took_ns)
{
    struct buf b = {0};
    for (size_t i = 0; i < ctl->endpoint_count; i++) {
        char *took = ctl_duration_text(took_ns[i]);
        buf_printf(&b, "%s{\"endpoint\":", i ? "," : "");
        ctl_json_string(&b, ctl->endpoints[i], strlen(ctl->endpoints[i]));
        buf_printf(&b, ",\"health\":%s,\"took\":\"%s\"", yes(answers[i].code == ERR_OK), took);
        if (answers[i].code != ERR_OK) {
            buf_printf(&b, ",\"error\":");
            ctl_json_string(&b, answers[i].text, strlen(answers[i].text));
        }
        buf_printf(&b, "}");
        free(took);
    }
    printf("[%.*s]\n", (int)b.n, (const char *)b.p);
    buf_free(&b);
}

static void print_health(struct ctl *ctl, const struct ctl_answer *answers, const uint64_t *took_ns)
{
    static const char *const headers[] = {"ENDPOINT", "HEALTH", "TOOK", "ERROR"};
    struct ctl_table t = {.headers = headers, .columns = ARRAY_LEN(headers)};
    for (size_t i = 0; i < ctl->endpoint_count; i++) {
        bool good = answers[i].code == ERR_OK;
        const char *error = good ? "" : answers[i].text, *endpoint = ctl->endpoints[i];
        char *took = ctl_duration_text(took_ns[i]);
        if (ctl->output == CTL_TABLE) {
            ctl_table_add(&t, xstrdup(endpoint));
            ctl_table_add(&t, xstrdup(yes(good)));
            ctl_table_add(&t, xstrdup(took));
            ctl_table_add(&t, xstrdup(error));
        } else if (ctl->output == CTL_FIELDS) {
            printf("\"Endpoint\" : \"%s\"\n\"Health\" : %s\n\"Took\" : %s\n\"Error\" : %s\n\n",
                   endpoint, yes(good), took, error);
        } else if (good) {
            fprintf(stderr, "%s is healthy: successfully committed proposal: took = %s\n", endpoint,
                    took); /* to standard error, as etcdctl 3.4 */
        } else {
            fprintf(stderr, "%s is unhealthy: failed to commit proposal: %s\n", endpoint, error);
        }
        free(took);
    }
    if (ctl->output == CTL_TABLE)
        ctl_table_print(&t);
}

/* As etcdctl does: a linearizable read of the key "health", which need not be there. */
static bool run_health(struct ctl *ctl)
{
    struct ctl_answer answers[CLIENT_ENDPOINTS_MAX];
    uint64_t took_ns[CLIENT_ENDPOINTS_MAX] = {0};
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
    r.key = (ProtobufCBinaryData){6, (uint8_t *)"health"};
    if (!ctl_take_cluster_flag(ctl))
        return true;
    if (!ctl_arguments(ctl, 0, 0))
        return false;
    ask_each(ctl, "/etcdserverpb.KV/Range", &r.base, &etcdserverpb__range_response__descriptor,
             answers, took_ns);
    if (ctl->output == CTL_JSON)
        print_health_json(ctl, answers, took_ns);
    else
        print_health(ctl, answers, took_ns);
    bool all = true;
    for (size_t i = 0; i < ctl->endpoint_count; i++) {
        all = all && answers[i].code == ERR_OK;
        ctl_answer_free(&answers[i]);
    }
    if (!all)
        fprintf(stderr, "Error: unhealthy cluster\n");
    ctl_finish(ctl, all ? 0 : 1);
    return true;
}

const struct ctl_command ctl_endpoint_commands[] = {
    {"endpoint status", "[--cluster]", "shows the state of each endpoint", run_status},
    {"endpoint health", "[--cluster]", "whether each endpoint can read", run_health},
    {"endpoint hashkv", "[--rev=N] [--cluster]", "a hash of each endpoint's keys", run_hashkv},
    {0},
};
