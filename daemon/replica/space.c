/* The space on the disk: once a second a member looks what is free under its data directory. Below a low mark,
 * or when log or store lack space already, it raises NOSPACE for itself: requests that add data are refused in
 * the whole cluster, all others go on, with the reserves of log and store (daemon/log/wal.h,
 * daemon/store/mvcc.h). Above a high mark, with the reserves whole again, it takes its alarm back by itself.
 *
 * The marks. What still arrives between two looks is written to the log's preallocated segment first and then
 * by the store, whose reserve holds two batches: the low mark is twice that reserve, 32 MiB as configured, so
 * that refusing begins with the reserve untouched. The high one is a reserve above the low one, so that the
 * reserve can be made again and the alarm doesn't come and go.
 *
 * The alarm's row says that it is for the disk: one raised by the quota, or by an operator, stays for the
 * operator, as etcd's. */
#include <inttypes.h>
#include <stdio.h>

#include "daemon/replica/internal.h"

#define LOOK_INTERVAL_MS 1000

uint64_t space_low_mark(const struct replica *r)
{
    return 2 * mvcc_reserve_bytes(r->store);
}

static uint64_t high_mark(const struct replica *r)
{
    return space_low_mark(r) + mvcc_reserve_bytes(r->store);
}

void space_tell(struct replica *r, bool shortage, const char *text)
{
    if (r->config.space)
        r->config.space(r->config.ctx, shortage, text);
}

static const char *lacking(const struct replica *r)
{
    if (wal_waits_for_space(r->wal))
        return "; the log waits for its next segment";
    if (mvcc_waits_for_space(r->store))
        return "; the store waits to be written";
    return wal_lacks_space(r->wal)      ? "; the log has no spare segment"
           : mvcc_lacks_space(r->store) ? "; the store's reserve is used up"
                                        : "";
}

static void tell_low(struct replica *r, bool changed)
{
    char text[640];
    const char *why = lacking(r);
    if (!changed && why == r->space.told)
        return;
    r->space.told = why;
    snprintf(
        text, sizeof(text),
        "%s: the disk is full or nearly so, %" PRIu64
        " bytes are free%s. Writes that add data are refused "
        "(NOSPACE); reads, deletes, compaction and defragmentation go on. Free space on this file "
        "system: from %" PRIu64 " bytes on writes are accepted again without a restart",
        r->config.data_dir, r->space.free, why, high_mark(r));
    space_tell(r, true, text);
}

static void tell_enough(struct replica *r)
{
    char text[512];
    snprintf(text, sizeof(text), "%s: %" PRIu64 " bytes are free again: NOSPACE is taken back",
             r->config.data_dir, r->space.free);
    r->space.told = NULL;
    space_tell(r, false, text);
}

/* ---- the alarm ---------------------------------------------------------------------------------- */

static void propose_alarm(struct replica *r, bool activate, uint32_t cause)
{
    if (r->alarm)
        return; /* one at a time; a later look sees what has become of it */
    Etcdserverpb__AlarmRequest alarm = ETCDSERVERPB__ALARM_REQUEST__INIT;
    alarm.action = activate ? ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE
                            : ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
    alarm.memberid = r->member_id;
    alarm.alarm = ETCDSERVERPB__ALARM_TYPE__NOSPACE;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_ALARM;
    request.alarm = &alarm;
    request.alarm_cause = cause;
    r->alarm = propose_internal(r, &request, NULL);
}

void space_quota_reached(struct replica *r)
{
    char text[512];
    if (r->alarm)
        return;
    snprintf(
        text, sizeof(text),
        "the store is at its quota, %" PRIu64 " of %" PRIu64
        " bytes (--quota-backend-bytes): writes that "
        "add data are refused (NOSPACE). Delete keys, compact the history, defragment, then disarm "
        "the alarm (etcdctl alarm disarm); or start with a higher quota",
        mvcc_size_in_use(r->store) + mvcc_backlog_bytes(r->store), duties_quota(r));
    space_tell(r, true, text);
    propose_alarm(r, true, ALARM_CAUSE_QUOTA);
}

static void keep_alarm(struct replica *r)
{
    bool raised = apply_alarm_causes(r->apply, r->member_id) & ALARM_CAUSE_DISK;
    if (raised != r->space.low && r->status.leader)
        propose_alarm(r, r->space.low, ALARM_CAUSE_DISK);
}

/* ---- the look ----------------------------------------------------------------------------------- */

static void retry(struct replica *r)
{
    if (wal_lacks_space(r->wal)) {
        if (wal_waits_for_space(r->wal))
            mvcc_checkpoint_soon(r->store); /* what is durable can be cut off the log */
        wal_space_retry(r->wal);
    }
    if (mvcc_lacks_space(r->store))
        mvcc_space_retry(r->store, r->space.free);
}

void space_tick(struct replica *r)
{
    uint64_t every = LOOK_INTERVAL_MS / (r->config.tick_ms ? r->config.tick_ms : LOOK_INTERVAL_MS);
    uint64_t free_bytes;
    if (r->ticks % (every ? every : 1) != 0 || r->in.installing ||
        r->config.disk->free_bytes(r->config.disk, r->config.data_dir, &free_bytes, NULL))
        return;
    r->space.free = free_bytes;
    retry(r);
    bool was = r->space.low;
    r->space.low = free_bytes < (was ? high_mark(r) : space_low_mark(r)) ||
                   wal_lacks_space(r->wal) || mvcc_lacks_space(r->store);
    /* What isn't all here yet must not stop the whole cluster's writes. */
    if (r->space.low && snapshot_in_drop(r, ERR_NO_SPACE, "the disk is full or nearly so"))
        r->space.low = was;
    if (r->space.low)
        tell_low(r, !was);
    else if (was)
        tell_enough(r);
    keep_alarm(r);
}
