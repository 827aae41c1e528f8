#include "fuse/txn.h"

#include <stdlib.h>

static struct bytes keep(struct txn *t, struct bytes s)
{
    if (s.n == 0)
        return BYTES_EMPTY;
    uint8_t *p = arena_alloc(&t->arena, s.n);
    memcpy(p, s.p, s.n);
    return bytes_of(p, s.n);
}

void txn_if_range(struct txn *t, struct bytes key, struct bytes end, enum store_target target,
                  enum store_relation relation, int64_t operand)
{
    if (t->compare_count == t->compare_cap) {
        t->compare_cap = t->compare_cap ? 2 * t->compare_cap : 8;
        t->compares = xrealloc(t->compares, t->compare_cap * sizeof *t->compares);
    }
    t->compares[t->compare_count++] =
        (struct store_compare){keep(t, key), keep(t, end), target, relation, operand};
}

void txn_if(struct txn *t, struct bytes key, enum store_target target, enum store_relation relation,
            int64_t operand)
{
    txn_if_range(t, key, BYTES_EMPTY, target, relation, operand);
}

static struct txn_op *add(struct txn *t, enum store_op_kind kind, struct bytes key)
{
    if (t->op_count == t->op_cap) {
        t->op_cap = t->op_cap ? 2 * t->op_cap : 8;
        t->ops = xrealloc(t->ops, t->op_cap * sizeof *t->ops);
    }
    struct txn_op *op = &t->ops[t->op_count++];
    *op = (struct txn_op){.op = {.kind = kind, .key = keep(t, key)}};
    return op;
}

void txn_put(struct txn *t, struct bytes key, struct value *v, int64_t lease)
{
    struct txn_op *op = add(t, STORE_PUT, key);
    op->value = v ? value_ref(v) : value_new(BYTES_EMPTY);
    op->op.value = value_bytes(op->value);
    op->op.lease = lease;
}

void txn_delete(struct txn *t, struct bytes key)
{
    add(t, STORE_DELETE, key);
}

void txn_delete_range(struct txn *t, struct bytes key, struct bytes end)
{
    struct txn_op *op = add(t, STORE_DELETE, key);
    op->op.end = keep(t, end);
}

void txn_get(struct txn *t, struct bytes key, bool keys_only)
{
    add(t, STORE_GET, key)->op.keys_only = keys_only;
}

void txn_else_get(struct txn *t, struct bytes key)
{
    t->otherwise = (struct store_op){.kind = STORE_GET, .key = keep(t, key)};
    t->has_otherwise = true;
}

bool txn_puts(const struct txn *t, struct bytes key)
{
    for (size_t i = 0; i < t->op_count; i++)
        if (t->ops[i].op.kind == STORE_PUT && bytes_equal(t->ops[i].op.key, key))
            return true;
    return false;
}

void txn_free(struct txn *t)
{
    for (size_t i = 0; i < t->op_count; i++)
        value_unref(t->ops[i].value);
    free(t->ops);
    free(t->compares);
    arena_free(&t->arena);
    *t = (struct txn){0};
}

bool range_has(struct bytes start, struct bytes end, struct bytes key)
{
    if (end.n == 0)
        return bytes_equal(start, key);
    if (bytes_compare(key, start) < 0)
        return false;
    return (end.n == 1 && end.p[0] == 0) || bytes_compare(key, end) < 0;
}

bool txn_touches(const struct txn *t, struct bytes key)
{
    for (size_t i = 0; i < t->op_count; i++)
        if (t->ops[i].op.kind != STORE_GET && range_has(t->ops[i].op.key, t->ops[i].op.end, key))
            return true;
    return false;
}

void range_end_of(struct bytes prefix, struct buf *out)
{
    size_t n = prefix.n;
    while (n > 0 && prefix.p[n - 1] == 0xff)
        n--;
    if (n == 0) {
        buf_append(out, "", 1);
        return;
    }
    buf_append(out, prefix.p, n);
    out->p[out->n - 1]++;
}
