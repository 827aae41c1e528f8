#include "daemon/replica/rescue.h"

#include <inttypes.h>
#include <stdlib.h>

#include "daemon/replica/internal.h"
#include "daemon/replica/offline.h"
#include "daemon/store/salvage.h"
#include "lib/base/memory.h"

struct rescue {
    const struct rescue_config *config;
    struct buf *report;
    char *store_to;
    struct salvage *store; /* NULL: nothing of it can be read, or the log has all */
    struct db_state state;
    bool store_whole;
    struct wal_salvaged log;
    uint64_t base, base_term; /* what the new store is as of */
    size_t skip;              /* of log.entries: the store has them */
    size_t count;             /* to be replayed */
    bool lost;
};

static enum errc no_job(struct rescue *s, struct error *err)
{
    return error_set(err, ERR_CORRUPT, "%s: neither the store nor the log can be read",
                     s->config->from);
}

static enum errc read_store(struct rescue *s, struct error *err)
{
    char *from = xasprintf("%s/member/store", s->config->from);
    struct error why = {0};
    enum errc code = salvage_begin(s->config->disk, from, s->store_to, s->report, &s->store,
                                   &s->state, &s->store_whole, &why);
    free(from);
    if (code == ERR_IO || code == ERR_NO_SPACE)
        return error_set(err, code, "%s", why.message);
    if (code != ERR_OK)
        buf_printf(s->report, "store: %s\n", why.message);
    return ERR_OK;
}

static enum errc read_log(struct rescue *s, struct error *err)
{
    char *from = xasprintf("%s/member/log", s->config->from);
    uint64_t applied = s->store ? s->state.applied : 0;
    enum errc code = wal_salvage(s->config->disk, from, applied, &s->log, s->report, err);
    free(from);
    return code;
}

/* The log from the first entry to beyond the store: then it is worth more than a store with gaps. */
static bool log_has_all(const struct rescue *s)
{
    uint64_t last = s->log.first + s->log.count;
    return s->log.first == 0 && s->log.count > 0 && members_is_bootstrap(s->log.entries[0]) &&
           last >= s->state.applied;
}

static void plan(struct rescue *s)
{
    uint64_t last = s->log.first + s->log.count;
    if (!s->store_whole && log_has_all(s)) {
        salvage_abort(s->store);
        s->store = NULL;
    }
    if (!s->store) { /* replay everything, if there is anything */
        bool useful = log_has_all(s);
        s->count = useful ? s->log.count : 0;
        s->lost = s->log.damaged || !useful;
        return;
    }
    s->lost = !s->store_whole || s->log.damaged;
    s->base = s->state.applied ? s->state.applied : last ? last : 1;
    s->base_term = s->state.applied ? s->state.term : s->log.term;
    if (s->log.first > s->base) {
        buf_printf(s->report, "log: entries %" PRIu64 " to %" PRIu64 " are missing\n", s->base + 1,
                   s->log.first);
        s->lost = true;
        return;
    }
    if (last > s->base) {
        s->skip = (size_t)(s->base - s->log.first);
        s->count = s->log.count - s->skip;
    }
    if (s->state.applied == 0)
        buf_printf(s->report, "log: what entries up to %" PRIu64 " changed may be missing\n", last);
}

/* Membership is not taken over: the first entry names the new member, later changes change nothing. */
static void replace_membership(struct rescue *s)
{
    struct member_list list = {0};
    member_list_set(&list, s->config->member);
    for (size_t i = s->skip; i < s->skip + s->count; i++) {
        struct raft_entry *e = s->log.entries[i], *other = NULL;
        if (members_is_bootstrap(e)) {
            struct raft_entry *b = members_bootstrap_entry(&list);
            other =
                raft_entry_new(e->term, e->index, e->type, e->stamp, bytes_of(b->data, b->size));
            raft_entry_unref(b);
        } else if (e->type == RAFT_ENTRY_CONF) {
            other = raft_entry_new(e->term, e->index, RAFT_ENTRY_NOOP, e->stamp, BYTES_EMPTY);
        }
        if (!other)
            continue;
        raft_entry_unref(e);
        s->log.entries[i] = other;
    }
    member_list_clear(&list);
}

static enum errc finish_store(struct rescue *s, struct error *err)
{
    struct offline_member row;
    offline_member_pack(&row, s->config->member);
    struct salvage *store = s->store;
    s->store = NULL;
    enum errc code = salvage_finish(store, s->base, s->base_term, bytes_of(row.key, 8),
                                    bytes_of(row.packed, row.n), err);
    free(row.packed);
    return code;
}

static enum errc write_log(struct rescue *s, struct error *err)
{
    return offline_write_log(
        &(struct offline_log){
            .disk = s->config->disk,
            .data_dir = s->config->to,
            .cluster_id = s->config->cluster_id,
            .member_id = s->config->member->id,
            .base = s->base,
            .base_term = s->base_term,
            .term = s->log.term > s->base_term ? s->log.term : s->base_term,
            .entries = s->log.entries + s->skip,
            .entry_count = s->count,
        },
        err);
}

enum errc replica_rescue(const struct rescue_config *config, struct buf *report, bool *ret_lost,
                         struct error *err)
{
    struct rescue s = {.config = config, .report = report};
    s.store_to = xasprintf("%s/member/store", config->to);
    enum errc code = config->disk->mkdir(config->disk, s.store_to, err);
    if (code == ERR_OK)
        code = read_store(&s, err);
    if (code == ERR_OK)
        code = read_log(&s, err);
    if (code == ERR_OK)
        plan(&s);
    if (code == ERR_OK && !s.store && s.count == 0)
        code = no_job(&s, err);
    if (code == ERR_OK) {
        replace_membership(&s);
        buf_printf(report, "%s, and %zu log entries behind entry %" PRIu64 "\n",
                   s.store ? "taken over: the store's rows" : "taken over: no rows", s.count,
                   s.base);
    }
    if (code == ERR_OK && s.store)
        code = finish_store(&s, err);
    if (code == ERR_OK)
        code = write_log(&s, err);
    salvage_abort(s.store);
    wal_salvaged_free(&s.log);
    free(s.store_to);
    *ret_lost = s.lost;
    return code;
}
