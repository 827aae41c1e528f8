/* What a leader knows of one member's log (the figure's nextIndex and matchIndex), and how fast it may
 * send to it.
 *
 *   PROBE      the logs' common point is not known: one append at a time, `next` goes back on rejection;
 *   REPLICATE  it is known: appends are pipelined, `next` runs ahead of the answers, as far as the
 *              window of messages and bytes under way allows;
 *   SNAPSHOT   the member needs entries that are gone: nothing is sent until the snapshot is reported
 *              delivered or failed, or the member answers with a match that is still in the log.
 *
 * Invariant: 0 <= match < next. */
#ifndef RAFT_PROGRESS_H
#define RAFT_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum raft_progress_state { RAFT_PROBE = 0, RAFT_REPLICATE = 1, RAFT_SNAPSHOT = 2 };

struct raft_inflight_item {
    uint64_t index; /* of the append's last entry: its acknowledgement frees the slot */
    size_t bytes;
};

/* Appends under way, oldest first. */
struct raft_inflight {
    struct raft_inflight_item *items; /* a ring of count_max, allocated at first use */
    size_t start, count, count_max;
    size_t bytes, bytes_max;
};

struct raft_progress {
    uint64_t id;
    bool learner;
    enum raft_progress_state state;
    uint64_t match;            /* the member has synced the log up to here */
    uint64_t next;             /* the next entry to send */
    uint64_t pending_snapshot; /* SNAPSHOT: its index */
    uint64_t commit_sent;      /* highest commit index that was sent in an append */
    uint64_t acked_round;      /* latest read round that the member has confirmed */
    bool recent_active;        /* heard from since the last check of the quorum */
    bool probe_sent;           /* PROBE: an append is under way */
    bool due;                  /* send an append, if only an empty one */
    struct raft_inflight inflight;
};

void raft_progress_init(struct raft_progress *p, uint64_t id, uint64_t next,
                        size_t inflight_messages_max, size_t inflight_bytes_max);
void raft_progress_free(struct raft_progress *p);

void raft_progress_probe(struct raft_progress *p);
void raft_progress_replicate(struct raft_progress *p);
void raft_progress_snapshot(struct raft_progress *p, uint64_t index);

/* Nothing may be sent at present. */
bool raft_progress_paused(const struct raft_progress *p);

/* An append that ends at `last` with `count` entries of `bytes` was sent. */
void raft_progress_sent(struct raft_progress *p, uint64_t last, size_t count, size_t bytes);

/* The member has the log up to `index`: true if that is news. */
bool raft_progress_update(struct raft_progress *p, uint64_t index);

/* The append after `rejected` was refused, and the logs may agree at `hint`: true if `next` was changed,
 * false if the answer is stale. */
bool raft_progress_reject(struct raft_progress *p, uint64_t rejected, uint64_t hint);

/* The window: how it fills and drains. */
bool raft_inflight_full(const struct raft_inflight *f);
void raft_inflight_add(struct raft_inflight *f, uint64_t index, size_t bytes);
void raft_inflight_free_to(struct raft_inflight *f, uint64_t index);
void raft_inflight_reset(struct raft_inflight *f);

#endif
