/* What tests ask the members of replica_fixture.h, and look at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/replica_fixture.h"

struct node *leader_node(void)
{
    for (size_t i = 0; i < cl.count; i++) {
        struct node *n = &cl.nodes[i];
        if (n->replica && !n->cut && n->leader == n->id &&
            lessor_is_primary(replica_lessor(n->replica)))
            return n;
    }
    return NULL;
}

struct node *wait_leader(void)
{
    WAIT(leader_node());
    return leader_node();
}

struct node *follower_node(void)
{
    struct node *leader = wait_leader();
    for (size_t i = 0; i < cl.count; i++) {
        if (&cl.nodes[i] != leader && cl.nodes[i].replica && !cl.nodes[i].cut)
            return &cl.nodes[i];
    }
    return NULL;
}

/* ---- requests ----------------------------------------------------------------------------------- */

void on_answer(void *ctx, const struct apply_result *result)
{
    struct answer *a = ctx;
    a->done = true;
    a->calls++;
    a->code = result->code;
    if (result->code != ERR_OK)
        return;
    if (result->message->descriptor == &etcdserverpb__put_response__descriptor)
        a->revision = ((const Etcdserverpb__PutResponse *)result->message)->header->revision;
    if (result->message->descriptor == &etcdserverpb__lease_grant_response__descriptor)
        a->lease = ((const Etcdserverpb__LeaseGrantResponse *)result->message)->id;
}

void on_code(void *ctx, enum errc code)
{
    struct answer *a = ctx;
    a->done = true;
    a->calls++;
    a->code = code;
}

struct replica_op *propose_put(struct node *n, const char *key, const char *value, int64_t lease,
                               struct answer *a)
{
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    put.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    put.value = (ProtobufCBinaryData){strlen(value), (uint8_t *)value};
    put.lease = lease;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_PUT;
    request.put = &put;
    *a = (struct answer){0};
    return replica_propose(n->replica, &request, on_answer, a);
}

int64_t must_put(struct node *n, const char *key, const char *value)
{
    struct answer a;
    propose_put(n, key, value, 0, &a);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_OK);
    return a.revision;
}

int64_t grant(struct node *n, int64_t ttl)
{
    Etcdserverpb__LeaseGrantRequest g = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    g.ttl = ttl;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_GRANT;
    request.lease_grant = &g;
    struct answer a = {0};
    replica_propose(n->replica, &request, on_answer, &a);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_OK);
    return a.lease;
}

enum errc read_point(struct node *n)
{
    struct answer a = {0};
    replica_read(n->replica, on_code, &a);
    WAIT(a.done);
    return a.code;
}

/* The value of a key in the node's own state. */
const char *local_value(struct node *n, const char *key)
{
    static char text[256];
    struct mvcc_kv *kv = mvcc_get(replica_store(n->replica), bytes_str(key), true);
    if (!kv)
        return NULL;
    snprintf(text, sizeof(text), "%.*s", (int)kv->value.n, kv->value.p);
    bool gone = kv->tombstone;
    mvcc_kv_unref(kv);
    return gone ? NULL : text;
}

struct hash {
    bool done;
    uint32_t hash;
};

static void on_hash(void *ctx, enum errc code, uint32_t hash, int64_t compact_revision,
                    int64_t hash_revision)
{
    struct hash *h = ctx;
    (void)compact_revision;
    (void)hash_revision;
    assert_int_equal(code, ERR_OK);
    h->hash = hash;
    h->done = true;
}

uint64_t applied(const struct node *n)
{
    return mvcc_applied_index(replica_store(n->replica));
}

bool all_even(void)
{
    uint64_t most = 0;
    for (size_t i = 0; i < cl.count; i++) {
        if (cl.nodes[i].replica && applied(&cl.nodes[i]) > most)
            most = applied(&cl.nodes[i]);
    }
    for (size_t i = 0; i < cl.count; i++) {
        if (cl.nodes[i].replica && !cl.nodes[i].removed && applied(&cl.nodes[i]) != most)
            return false;
    }
    return true;
}

/* All that run have the same revision and the same HashKV. */
void assert_all_equal(void)
{
    WAIT(all_even());
    struct hash first = {0};
    int64_t revision = 0;
    for (size_t i = 0; i < cl.count; i++) {
        struct node *n = &cl.nodes[i];
        if (!n->replica || n->removed)
            continue;
        struct hash h = {0};
        mvcc_hash_kv(replica_store(n->replica), 0, on_hash, &h);
        WAIT(h.done);
        if (!first.done) {
            first = h;
            revision = mvcc_revision(replica_store(n->replica));
        }
        assert_int_equal(h.hash, first.hash);
        assert_int_equal(mvcc_revision(replica_store(n->replica)), revision);
    }
}
