#include "tests/sim/linear.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"

/* A call or a return in time's order; a doubly linked list from which an operation's pair is lifted while it
 * counts as linearized, and put back on the way back. */
struct entry {
    size_t op;
    bool is_return;
    uint64_t time;
    struct entry *prev, *next;
    struct entry *match; /* of a call: its return */
};

struct frame {
    struct entry *call;
    uint8_t state[LINEAR_STATE_MAX];
};

/* The visited pairs (linearized set, state), as an open-addressed hash set of whole copies. */
struct memo {
    uint8_t *slots;
    size_t item_size, cap, count;
};

struct search {
    const struct linear_model *model;
    const struct linear_op *ops;
    struct entry *entries, head;
    struct frame *stack;
    size_t depth, set_bytes;
    uint8_t *key; /* set, then state */
    struct memo memo;
};

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    if (x->is_return != y->is_return) /* ties are concurrent: calls first */
        return x->is_return ? 1 : -1;
    return x->op < y->op ? -1 : x->op > y->op;
}

static uint64_t hash_bytes(const uint8_t *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3;
    return h ^ (h >> 29);
}

/* Adds the item; false if it was there. Slots begin with a byte that says that they are taken. */
static bool memo_add(struct memo *m, const uint8_t *item)
{
    if (m->count * 2 >= m->cap) {
        struct memo larger = {.item_size = m->item_size, .cap = m->cap ? m->cap * 2 : 1024};
        larger.slots = xcalloc(larger.cap, 1 + m->item_size);
        for (size_t i = 0; i < m->cap; i++) {
            const uint8_t *slot = m->slots + i * (1 + m->item_size);
            if (slot[0])
                memo_add(&larger, slot + 1);
        }
        free(m->slots);
        *m = larger;
    }
    size_t at = hash_bytes(item, m->item_size) & (m->cap - 1);
    for (;; at = (at + 1) & (m->cap - 1)) {
        uint8_t *slot = m->slots + at * (1 + m->item_size);
        if (!slot[0]) {
            slot[0] = 1;
            memcpy(slot + 1, item, m->item_size);
            m->count++;
            return true;
        }
        if (memcmp(slot + 1, item, m->item_size) == 0)
            return false;
    }
}

static void unlink_entry(struct entry *e)
{
    e->prev->next = e->next;
    if (e->next)
        e->next->prev = e->prev;
}

static void relink_entry(struct entry *e)
{
    e->prev->next = e;
    if (e->next)
        e->next->prev = e;
}

static void lift(struct entry *call)
{
    unlink_entry(call);
    unlink_entry(call->match);
}

static void unlift(struct entry *call)
{
    relink_entry(call->match);
    relink_entry(call);
}

static void begin(struct search *s, size_t count)
{
    s->entries = xcalloc(2 * count + 1, sizeof(*s->entries));
    s->stack = xcalloc(count + 1, sizeof(*s->stack));
    s->set_bytes = (count + 7) / 8;
    s->key = xcalloc(1, s->set_bytes + s->model->state_size);
    s->memo.item_size = s->set_bytes + s->model->state_size;
    for (size_t i = 0; i < count; i++) {
        assert(s->ops[i].called <= s->ops[i].returned);
        s->entries[2 * i] = (struct entry){.op = i, .time = s->ops[i].called};
        s->entries[2 * i + 1] =
            (struct entry){.op = i, .is_return = true, .time = s->ops[i].returned};
    }
    qsort(s->entries, 2 * count, sizeof(*s->entries), compare_entries);
    struct entry **calls = xcalloc(count + 1, sizeof(*calls)), *last = &s->head;
    for (size_t i = 0; i < 2 * count; i++) {
        struct entry *e = &s->entries[i];
        if (!e->is_return)
            calls[e->op] = e;
        else
            calls[e->op]->match = e;
        last->next = e;
        e->prev = last;
        last = e;
    }
    free(calls);
}

/* Takes `call` as the next operation in the order, if the model allows it and it leads somewhere new. */
static bool try_call(struct search *s, struct entry *call, uint8_t *state)
{
    uint8_t after[LINEAR_STATE_MAX];
    memcpy(after, state, s->model->state_size);
    if (!s->model->step(after, &s->ops[call->op]))
        return false;
    s->key[call->op / 8] |= (uint8_t)(1u << (call->op % 8));
    memcpy(s->key + s->set_bytes, after, s->model->state_size);
    if (!memo_add(&s->memo, s->key)) {
        s->key[call->op / 8] &= (uint8_t) ~(1u << (call->op % 8));
        return false;
    }
    s->stack[s->depth].call = call;
    memcpy(s->stack[s->depth].state, state, s->model->state_size);
    s->depth++;
    memcpy(state, after, s->model->state_size);
    lift(call);
    return true;
}

/* Only operations of unknown outcome are left: none of them needs to have happened. */
static bool only_pending(const struct search *s)
{
    for (const struct entry *e = s->head.next; e; e = e->next) {
        if (e->is_return && e->time != LINEAR_PENDING)
            return false;
    }
    return true;
}

enum linear_verdict linear_check(const struct linear_model *model, const struct linear_op *ops,
                                 size_t count, uint64_t steps_max, size_t *ret_stuck)
{
    assert(model->state_size > 0 && model->state_size <= LINEAR_STATE_MAX);
    struct search s = {.model = model, .ops = ops};
    uint8_t state[LINEAR_STATE_MAX] = {0};
    enum linear_verdict verdict = LINEAR_GAVE_UP;
    size_t deepest = 0;
    begin(&s, count);
    model->init(state);
    struct entry *e = s.head.next;
    for (uint64_t steps = 0; steps < steps_max; steps++) {
        if (!e || e->time == LINEAR_PENDING || only_pending(&s)) {
            verdict = LINEAR_YES;
            break;
        }
        if (!e->is_return) {
            e = try_call(&s, e, state) ? s.head.next : e->next;
            continue;
        }
        /* A return of an operation that is not in the order yet: some choice before was wrong. */
        if (s.depth >= deepest && ret_stuck) {
            deepest = s.depth;
            *ret_stuck = e->op;
        }
        if (s.depth == 0) {
            verdict = LINEAR_NO;
            break;
        }
        struct frame *top = &s.stack[--s.depth];
        memcpy(state, top->state, model->state_size);
        s.key[top->call->op / 8] &= (uint8_t) ~(1u << (top->call->op % 8));
        unlift(top->call);
        e = top->call->next;
    }
    free(s.entries);
    free(s.stack);
    free(s.key);
    free(s.memo.slots);
    return verdict;
}
