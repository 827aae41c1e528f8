#include <errno.h>
#include <fcntl.h>

#include "fuse/state.h"

/* Exclusive creation: the cluster decides at open who has the name, and nobody sees an empty file.
 *
 * open(O_EXCL) puts a hidden key, the reservation, if neither the file nor another reservation exists; the
 * save puts the file and deletes the reservation. It hangs on a lease of this mount, so that a name is free
 * again when the mount has died. For the key `a/b` it is `a/.quorumfs/new/b`. */

#define RESERVE_TTL_S 30

/* ---- The mount's lease ------------------------------------------------------------------------------ */

static void lease_granted(void *ctx, enum errc code, int64_t id)
{
    struct core *c = ctx;
    c->lease_asked = code == ERR_OK;
    c->lease_id = code == ERR_OK ? id : 0;
    struct list ready;
    list_init(&ready);
    LIST_FOR_EACH_SAFE(it, next, &c->lease_waiters)
    {
        list_remove(it);
        list_append(&ready, it);
    }
    while (!list_empty(&ready)) {
        struct op *op = CONTAINER_OF(ready.next, struct op, link);
        list_remove(&op->link);
        op->code = code;
        op->run(op);
    }
}

static void lease_lost(void *ctx)
{
    struct core *c = ctx;
    c->lease_id = 0;
    c->lease_asked = false;
}

/* Goes on with op->run when there is a lease, or with the reason in op->code. */
static void need_lease(struct op *op)
{
    struct core *c = op->c;
    if (c->lease_id) {
        op->code = ERR_OK;
        op->run(op);
        return;
    }
    list_append(&c->lease_waiters, &op->link);
    if (c->lease_asked)
        return;
    c->lease_asked = true;
    c->backend->lease(c->backend, RESERVE_TTL_S, lease_granted, lease_lost, c);
}

/* ---- Reservations ----------------------------------------------------------------------------------- */

/* The reservation's key of a file's key, both with the prefix. */
static void reservation_key(struct bytes file, struct buf *out)
{
    const uint8_t *slash = memrchr(file.p, '/', file.n);
    size_t name = slash ? (size_t)(slash - file.p) + 1 : 0;
    buf_append(out, file.p, name);
    buf_append(out, CODEC_RESERVED "/new/", strlen(CODEC_RESERVED "/new/"));
    buf_append(out, file.p + name, file.n - name);
}

static void reserved(struct op *op, const struct store_txn_result *r)
{
    if (r->code == ERR_LEASE_NOT_FOUND && op->tries++ < 3) {
        lease_lost(op->c);
        reserve_name(op);
    } else if (r->code != ERR_OK || !r->succeeded)
        op_fail(op, r->code != ERR_OK ? core_errno(r->code) : EEXIST);
    else
        create_reserved(op);
}

static void with_lease(struct op *op)
{
    struct core *c = op->c;
    struct place p;
    struct buf file = {0}, dir = {0};
    if (op->code != ERR_OK) {
        op_fail(op, core_errno(op->code));
        return;
    }
    if (!create_place(op, &p))
        return;
    create_keys(c, &p, op->name, &file, &dir);
    op->key.n = 0;
    reservation_key(buf_bytes(&file), &op->key);
    txn_free(&op->txn);
    if (p.self)
        txn_if(&op->txn, buf_bytes(&file), STORE_CREATE, STORE_EQUAL, 0);
    else
        txn_if_free(&op->txn, buf_bytes(&file), buf_bytes(&dir));
    txn_if(&op->txn, buf_bytes(&op->key), STORE_CREATE, STORE_EQUAL, 0);
    txn_put(&op->txn, buf_bytes(&op->key), NULL, c->lease_id);
    buf_free(&file);
    buf_free(&dir);
    mirror_txn(op, reserved);
}

/* Reserves the name of a create, then goes on with create_reserved(); op->key is the reservation. */
void reserve_name(struct op *op)
{
    op->run = with_lease;
    need_lease(op);
}

static void given_up(struct op *op, const struct store_txn_result *r)
{
    (void)r; /* the lease ends it otherwise */
    op_free(op);
}

void reserve_drop(struct core *c, struct handle *h)
{
    static const struct caller nobody;
    if (!h->reservation.n)
        return;
    struct op *op = op_new(c, &nobody, NULL, NULL, NULL);
    txn_delete(&op->txn, buf_bytes(&h->reservation));
    h->reservation.n = 0;
    mirror_txn(op, given_up);
}

void reserve_drop_all(struct core *c, struct inode *i)
{
    for (struct list *it = i ? i->handles.next : NULL; i && it != &i->handles; it = it->next)
        reserve_drop(c, CONTAINER_OF(it, struct handle, link));
}
