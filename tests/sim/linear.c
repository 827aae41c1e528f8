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

/* ---- the search --------------------------------------------------------------------------------- */

static uint64_t hint_of(const struct search *s, const struct entry *call)
{
    const struct linear_op *op = &s->ops[call->op];
    return op->hint == 0 && op->returned == LINEAR_PENDING ? LINEAR_LAST : op->hint;
}

static bool comes_before(const struct search *s, const struct entry *a, const struct entry *b)
{
    uint64_t x = hint_of(s, a), y = hint_of(s, b);
    return x != y ? x < y : a < b; /* the entries are an array in time's order */
}

/* Of the operations that may be next, the one to try after `tried` (NULL: the first one); NULL: none is left. */
static struct entry *next_choice(struct search *s, const struct entry *tried)
{
    struct entry *best = NULL;
    for (struct entry *e = s->head.next; e && !e->is_return; e = e->next) {
        if ((!tried || comes_before(s, tried, e)) && (!best || comes_before(s, e, best)))
            best = e;
    }
    return best;
}

/* The first one of those that are not in the order yet; NULL: only operations of unknown outcome are left, and none
 * of them needs to have happened. */
static const struct entry *first_return(const struct search *s)
{
    const struct entry *e = s->head.next;
    while (e && !e->is_return)
        e = e->next;
    return e && e->time != LINEAR_PENDING ? e : NULL;
}

/* Takes the last choice back; NULL: there was none. */
static struct entry *undo(struct search *s, uint8_t *state)
{
    if (s->depth == 0)
        return NULL;
    struct frame *top = &s->stack[--s->depth];
    memcpy(state, top->state, s->model->state_size);
    s->key[top->call->op / 8] &= (uint8_t) ~(1u << (top->call->op % 8));
    unlift(top->call);
    return top->call;
}

static enum linear_verdict search(struct search *s, uint64_t steps_max, size_t *ret_stuck)
{
    uint8_t state[LINEAR_STATE_MAX] = {0};
    size_t deepest = 0;
    s->model->init(state);
    struct entry *e = next_choice(s, NULL);
    for (uint64_t steps = 0; steps < steps_max; steps++) {
        const struct entry *limit = first_return(s);
        if (!limit)
            return LINEAR_YES;
        if (e) {
            e = next_choice(s, try_call(s, e, state) ? NULL : e);
            continue;
        }
        /* Nothing leads past this return: some choice before was wrong. */
        if (s->depth >= deepest && ret_stuck) {
            deepest = s->depth;
            *ret_stuck = limit->op;
        }
        const struct entry *undone = undo(s, state);
        if (!undone)
            return LINEAR_NO;
        e = next_choice(s, undone);
    }
    return LINEAR_GAVE_UP;
}

enum linear_verdict linear_check(const struct linear_model *model, const struct linear_op *ops,
                                 size_t count, uint64_t steps_max, size_t *ret_stuck)
{
    assert(model->state_size > 0 && model->state_size <= LINEAR_STATE_MAX);
    struct search s = {.model = model, .ops = ops};
    begin(&s, count);
    enum linear_verdict verdict = search(&s, steps_max, ret_stuck);
    free(s.entries);
    free(s.stack);
    free(s.key);
    free(s.memo.slots);
    return verdict;
}
