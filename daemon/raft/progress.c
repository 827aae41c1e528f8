#include "daemon/raft/progress.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/memory.h"

bool raft_inflight_full(const struct raft_inflight *f)
{
    return f->count >= f->count_max || f->bytes >= f->bytes_max;
}

void raft_inflight_add(struct raft_inflight *f, uint64_t index, size_t bytes)
{
    assert(!raft_inflight_full(f));
    if (f->items == NULL)
        f->items = xcalloc(f->count_max, sizeof *f->items);
    f->items[(f->start + f->count++) % f->count_max] =
        (struct raft_inflight_item){.index = index, .bytes = bytes};
    f->bytes += bytes;
}

void raft_inflight_free_to(struct raft_inflight *f, uint64_t index)
{
    while (f->count > 0 && f->items[f->start].index <= index) {
        f->bytes -= f->items[f->start].bytes;
        f->start = (f->start + 1) % f->count_max;
        f->count--;
    }
}

void raft_inflight_reset(struct raft_inflight *f)
{
    f->start = 0;
    f->count = 0;
    f->bytes = 0;
}

void raft_progress_init(struct raft_progress *p, uint64_t id, uint64_t next,
                        size_t inflight_messages_max, size_t inflight_bytes_max)
{
    assert(next > 0);
    *p = (struct raft_progress){
        .id = id,
        .state = RAFT_PROBE,
        .next = next,
        .inflight = {.count_max = inflight_messages_max, .bytes_max = inflight_bytes_max}};
}

void raft_progress_free(struct raft_progress *p)
{
    free(p->inflight.items);
    *p = (struct raft_progress){0};
}

static void change_state(struct raft_progress *p, enum raft_progress_state state)
{
    p->state = state;
    p->probe_sent = false;
    p->pending_snapshot = 0;
    raft_inflight_reset(&p->inflight);
}

void raft_progress_probe(struct raft_progress *p)
{
    uint64_t next = p->match + 1;
    if (p->state == RAFT_SNAPSHOT && p->pending_snapshot >= next)
        next = p->pending_snapshot + 1;
    change_state(p, RAFT_PROBE);
    p->next = next;
}

void raft_progress_replicate(struct raft_progress *p)
{
    change_state(p, RAFT_REPLICATE);
    p->next = p->match + 1;
}

void raft_progress_snapshot(struct raft_progress *p, uint64_t index)
{
    change_state(p, RAFT_SNAPSHOT);
    p->pending_snapshot = index;
}

bool raft_progress_paused(const struct raft_progress *p)
{
    switch (p->state) {
    case RAFT_PROBE:
        return p->probe_sent;
    case RAFT_REPLICATE:
        return false; /* a full window still lets empty appends through: see replication.c */
    case RAFT_SNAPSHOT:
        return true;
    }
    return true;
}

void raft_progress_sent(struct raft_progress *p, uint64_t last, size_t count, size_t bytes)
{
    if (p->state == RAFT_PROBE) {
        p->probe_sent = true;
        return;
    }
    assert(p->state == RAFT_REPLICATE);
    if (count == 0)
        return;
    p->next = last + 1;
    raft_inflight_add(&p->inflight, last, bytes);
}

bool raft_progress_update(struct raft_progress *p, uint64_t index)
{
    bool news = index > p->match;
    if (news) {
        p->match = index;
        p->probe_sent = false;
    }
    if (p->next <= index)
        p->next = index + 1;
    assert(p->match < p->next);
    return news;
}

bool raft_progress_reject(struct raft_progress *p, uint64_t rejected, uint64_t hint)
{
    if (p->state == RAFT_REPLICATE) {
        if (rejected <= p->match)
            return false; /* it had been overtaken by a later answer */
        raft_progress_probe(p);
        return true;
    }
    if (p->state == RAFT_SNAPSHOT || p->next - 1 != rejected)
        return false; /* not the probe that is under way */
    uint64_t next = hint + 1 < rejected ? hint + 1 : rejected;
    if (next < p->match + 1)
        next = p->match + 1;
    p->next = next;
    p->probe_sent = false;
    return true;
}
