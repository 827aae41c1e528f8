#include <fnmatch.h>
#include <stdlib.h>

#include "fuse/state.h"
#include "lib/base/log.h"

bool local_name(const struct core *c, const char *name)
{
    for (size_t i = 0; i < c->options.local_pattern_count; i++)
        if (fnmatch(c->options.local_patterns[i], name, 0) == 0)
            return true;
    return false;
}

struct local_file *local_make(struct core *c, struct node *n, bool pending)
{
    if (!n->local)
        n->local = xcalloc(1, sizeof *n->local);
    n->local->pending = pending;
    n->local->mtime_ns = core_wall_ns(c);
    return n->local;
}

/* ---- Files whose place is about to be taken --------------------------------------------------------- */

void local_mask(struct core *c, struct node *n)
{
    if (n->masked)
        return;
    n->masked = true;
    n->masked_until_ms = core_now_ms(c) + CORE_MASK_MS;
    list_append(&c->masked, &n->masked_link);
    node_settle(c, n);
}

/* The caller settles the node. */
void local_unmask(struct core *c, struct node *n)
{
    (void)c;
    n->masked = false;
    list_remove(&n->masked_link);
}

static void mask_over(struct op *op, const struct store_txn_result *r)
{
    struct core *c = op->c;
    struct buf path = {0};
    codec_key_to_path(bytes_of(op->key.p + c->prefix.n, op->key.n - c->prefix.n), &path);
    if (r->code == ERR_OK && r->succeeded)
        mirror_apply_txn(c, &op->txn, r);
    else { /* it is there after all, as somebody else wants it */
        struct node *n = node_at(c, buf_bytes(&path), false);
        if (n && n->masked) {
            local_unmask(c, n);
            node_settle(c, n);
        }
    }
    buf_free(&path);
    op_free(op);
    if (c->stopping && --c->stopping == 0)
        c->stopped(c->stopped_ctx);
}

/* No successor came: what the rename took away is deleted in the cluster as well. */
static void delete_masked(struct core *c, struct node *n)
{
    static const struct caller nobody;
    struct op *op = op_new(c, &nobody, NULL, NULL, NULL);
    if (c->stopping)
        c->stopping++;
    n->masked_until_ms = UINT64_MAX; /* once */
    node_full_key(c, n, false, &op->key);
    txn_if(&op->txn, buf_bytes(&op->key), STORE_MOD, STORE_EQUAL, n->file->mod_revision);
    txn_delete(&op->txn, buf_bytes(&op->key));
    if (n->file_meta)
        txn_delete_meta(c, &op->txn, bytes_of(op->key.p + c->prefix.n, op->key.n - c->prefix.n));
    if (n->parent->visible_count == 0)
        txn_keep_parent(c, &op->txn, n);
    mirror_txn(op, mask_over);
}

void local_tick(struct core *c)
{
    uint64_t now = core_now_ms(c);
    LIST_FOR_EACH_SAFE(it, next, &c->masked)
    {
        struct node *n = CONTAINER_OF(it, struct node, masked_link);
        if (n->masked_until_ms <= now &&
            !n->local) /* a successor that is being written waits too */
            delete_masked(c, n);
    }
}

static size_t count_local(const struct node *n)
{
    size_t count = n->local && !n->local->pending ? 1 : 0;
    for (struct list *it = n->children.next; it != &n->children; it = it->next)
        count += count_local(CONTAINER_OF(it, struct node, siblings));
    return count;
}

void local_shutdown(struct core *c)
{
    size_t left = count_local(c->root);
    if (left)
        log_info("mount", "%zu files with local names (option local=) end with the mount", left);
    LIST_FOR_EACH_SAFE(it, next, &c->masked)
    {
        struct node *n = CONTAINER_OF(it, struct node, masked_link);
        if (n->masked_until_ms != UINT64_MAX)
            delete_masked(c, n);
    }
}
