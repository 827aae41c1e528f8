/* Differential test: sends one random sequence of requests to two servers and compares every answer.
 *
 *     differ URL-A URL-B SEED COUNT
 *
 * URL-A is quorumd, URL-B the distribution's etcd, both fresh and with one node. Codes, texts, revisions and
 * whole response messages must be equal; taken out are what differs between any two clusters (ids, term) and
 * quorumd's own extension field. Every thousand requests, and at the end, HashKV must be equal too. Ends with
 * exit code 1 at the first difference, printing the request and both answers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/memory.h"
#include "lib/client/client.h"

#define KEYS 24

struct answer {
    bool done;
    enum errc code;
    char text[512];
    ProtobufCMessage *message;
};

struct differ {
    uv_loop_t loop;
    struct client *clients[2];
    struct answer answers[2];
    uint64_t random;
    int64_t revision, compacted;
    uint64_t number;
};

static uint64_t next_random(struct differ *d) /* splitmix64 */
{
    uint64_t z = d->random += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t below(struct differ *d, uint64_t n)
{
    return next_random(d) % n;
}

static bool chance(struct differ *d, unsigned percent)
{
    return below(d, 100) < percent;
}

/* ---- Printing messages by their descriptors ---------------------------------------------------- */

static void print_message(const ProtobufCMessage *m, int depth);

static void print_scalar(const ProtobufCFieldDescriptor *f, const void *p, int depth)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *b = p;
        for (size_t i = 0; i < b->len && i < 80; i++)
            printf(b->data[i] >= 32 && b->data[i] < 127 ? "%c" : "\\x%02x", b->data[i]);
        break;
    }
    case PROTOBUF_C_TYPE_STRING:
        printf("%s", *(char *const *)p);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        printf("{\n");
        print_message(*(ProtobufCMessage *const *)p, depth + 1);
        printf("%*s}", depth * 2, "");
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        printf("%" PRId64, *(const int64_t *)p);
        break;
    default:
        printf("%d", *(const int32_t *)p);
    }
    printf("\n");
}

static size_t field_size(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return 8;
    default:
        return 4;
    }
}

static void print_message(const ProtobufCMessage *m, int depth)
{
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        const char *at = (const char *)m + f->offset;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t n = *(const size_t *)((const char *)m + f->quantifier_offset);
            for (size_t k = 0; k < n; k++) {
                printf("%*s%s[%zu]: ", depth * 2, "", f->name, k);
                print_scalar(f, *(char *const *)at + k * field_size(f), depth);
            }
            continue;
        }
        if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
            *(const uint32_t *)((const char *)m + f->quantifier_offset) != f->id)
            continue;
        if (f->type == PROTOBUF_C_TYPE_MESSAGE && *(void *const *)at == NULL)
            continue;
        printf("%*s%s: ", depth * 2, "", f->name);
        print_scalar(f, at, depth);
    }
}

/* ---- Asking both ------------------------------------------------------------------------------- */

/* Clears what differs between any two clusters, in a message and all below it. */
static void normalize(ProtobufCMessage *m)
{
    if (m->descriptor == &etcdserverpb__response_header__descriptor) {
        Etcdserverpb__ResponseHeader *h = (Etcdserverpb__ResponseHeader *)m;
        h->cluster_id = h->member_id = h->raft_term = 0;
    }
    if (m->descriptor == &mvccpb__key_value__descriptor)
        ((Mvccpb__KeyValue *)m)->stamp = 0;
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        char *at = (char *)m + f->offset;
        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            for (size_t k = 0; k < *(size_t *)((char *)m + f->quantifier_offset); k++)
                normalize((*(ProtobufCMessage ***)at)[k]);
        } else if (!((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
                     *(uint32_t *)((char *)m + f->quantifier_offset) != f->id) &&
                   *(void **)at) {
            normalize(*(ProtobufCMessage **)at);
        }
    }
}

static void answered(void *ctx, const struct client_result *result)
{
    struct answer *a = ctx;
    a->done = true;
    a->code = result->code;
    snprintf(a->text, sizeof(a->text), "%s", result->text ? result->text : "");
    if (result->code != ERR_OK)
        return;
    size_t size = protobuf_c_message_get_packed_size(result->message);
    uint8_t *packed = xmalloc(size + 1);
    protobuf_c_message_pack(result->message, packed);
    a->message = protobuf_c_message_unpack(result->message->descriptor, NULL, size, packed);
    free(packed);
    normalize(a->message);
}

static bool same_message(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
    size_t size = protobuf_c_message_get_packed_size(a);
    if (protobuf_c_message_get_packed_size(b) != size)
        return false;
    uint8_t *pa = xmalloc(size + 1), *pb = xmalloc(size + 1);
    protobuf_c_message_pack(a, pa);
    protobuf_c_message_pack(b, pb);
    bool same = memcmp(pa, pb, size) == 0;
    free(pa);
    free(pb);
    return same;
}

static void show(const struct differ *d, const char *path, const ProtobufCMessage *request)
{
    printf("request %" PRIu64 " %s\n", d->number, path);
    print_message(request, 1);
    for (int i = 0; i < 2; i++) {
        const struct answer *a = &d->answers[i];
        printf("%s: code %d %s\n", i == 0 ? "quorumd" : "etcd", a->code, a->text);
        if (a->message)
            print_message(a->message, 1);
    }
}

/* Asks both servers and waits. Answers stay in d->answers until the next call. */
static void ask(struct differ *d, const char *path, const ProtobufCMessage *request,
                const ProtobufCMessageDescriptor *response)
{
    for (int i = 0; i < 2; i++) {
        if (d->answers[i].message)
            protobuf_c_message_free_unpacked(d->answers[i].message, NULL);
        d->answers[i] = (struct answer){0};
        client_unary(d->clients[i], path, request, response, false, 60000, answered,
                     &d->answers[i]);
    }
    while (!d->answers[0].done || !d->answers[1].done)
        uv_run(&d->loop, UV_RUN_ONCE);
}

static void compare(struct differ *d, const char *path, const ProtobufCMessage *request)
{
    const struct answer *a = &d->answers[0], *b = &d->answers[1];
    bool same = a->code == b->code && strcmp(a->text, b->text) == 0 &&
                (a->code != ERR_OK || same_message(a->message, b->message));
    if (same)
        return;
    show(d, path, request);
    printf("DIFFERENT at request %" PRIu64 "\n", d->number);
    exit(1);
}

static void ask_and_compare(struct differ *d, const char *path, const ProtobufCMessage *request,
                            const ProtobufCMessageDescriptor *response)
{
    ask(d, path, request, response);
    compare(d, path, request);
}

/* ---- Making requests --------------------------------------------------------------------------- */

static ProtobufCBinaryData data_of(struct arena *arena, const char *text, size_t n)
{
    uint8_t *p = arena_alloc(arena, n + 1);
    memcpy(p, text, n);
    return (ProtobufCBinaryData){n, p};
}

static ProtobufCBinaryData some_key(struct differ *d, struct arena *arena)
{
    char text[32];
    if (chance(d, 1))
        return data_of(arena, "", 0);
    if (chance(d, 1))
        return data_of(arena, "\0\xff", 2);
    int n = snprintf(text, sizeof(text), "k%02d", (int)below(d, KEYS));
    return data_of(arena, text, (size_t)n);
}

static ProtobufCBinaryData some_end(struct differ *d, struct arena *arena)
{
    switch (below(d, 6)) {
    case 0:
        return data_of(arena, "\0", 1);
    case 1:
        return data_of(arena, "l", 1);
    case 2:
        return some_key(d, arena);
    case 3:
        return data_of(arena, "k1", 2);
    default:
        return data_of(arena, "", 0);
    }
}

static ProtobufCBinaryData some_value(struct differ *d, struct arena *arena)
{
    char text[64];
    if (chance(d, 5))
        return data_of(arena, "", 0);
    int n = snprintf(text, sizeof(text), "v%d", (int)below(d, 10));
    return data_of(arena, text, (size_t)n);
}

static int64_t some_revision(struct differ *d)
{
    switch (below(d, 10)) {
    case 0:
        return d->revision + 1 + (int64_t)below(d, 3);
    case 1:
        return -1;
    case 2:
        return d->compacted;
    case 3:
        return d->compacted > 1 ? d->compacted - 1 : 1;
    case 4:
    case 5:
        return d->revision - (int64_t)below(d, (uint64_t)(d->revision - d->compacted + 1));
    default:
        return 0;
    }
}

static Etcdserverpb__RangeRequest *some_range(struct differ *d, struct arena *arena)
{
    Etcdserverpb__RangeRequest *r = arena_alloc(arena, sizeof(*r));
    etcdserverpb__range_request__init(r);
    r->key = some_key(d, arena);
    r->range_end = some_end(d, arena);
    r->revision = some_revision(d);
    if (chance(d, 30))
        r->limit = (int64_t)below(d, 6) - 1;
    if (chance(d, 40)) {
        r->sort_order = (Etcdserverpb__RangeRequest__SortOrder)below(d, 3);
        r->sort_target = (Etcdserverpb__RangeRequest__SortTarget)below(d, 5);
        if (r->sort_target != ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__KEY) {
            /* Go's sort keeps the order of equal ones up to 12 items only: ask for 10 keys at most. */
            r->key = data_of(arena, "k0", 2);
            r->range_end = data_of(arena, "k1", 2);
        }
    }
    r->serializable = chance(d, 20);
    r->keys_only = chance(d, 20);
    r->count_only = chance(d, 10);
    int64_t *filters[] = {&r->min_mod_revision, &r->max_mod_revision, &r->min_create_revision,
                          &r->max_create_revision};
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        if (chance(d, 10))
            *filters[i] = d->revision - (int64_t)below(d, 30);
    }
    return r;
}

static int64_t some_lease(struct differ *d)
{
    return chance(d, 80) ? 0 : 1 + (int64_t)below(d, 6);
}

static Etcdserverpb__PutRequest *some_put(struct differ *d, struct arena *arena, bool alone)
{
    Etcdserverpb__PutRequest *r = arena_alloc(arena, sizeof(*r));
    etcdserverpb__put_request__init(r);
    r->key = some_key(d, arena);
    r->value = some_value(d, arena);
    r->lease = some_lease(d);
    r->prev_kv = chance(d, 30);
    /* Not in a transaction that may delete the key before: etcd 3.4 panics at that, at every restart again. */
    if (alone && chance(d, 5)) {
        r->ignore_value = true;
        if (chance(d, 80))
            r->value.len = 0;
    }
    if (chance(d, 5)) {
        r->ignore_lease = true;
        if (chance(d, 80))
            r->lease = 0;
    }
    return r;
}

static Etcdserverpb__DeleteRangeRequest *some_delete(struct differ *d, struct arena *arena)
{
    Etcdserverpb__DeleteRangeRequest *r = arena_alloc(arena, sizeof(*r));
    etcdserverpb__delete_range_request__init(r);
    r->key = some_key(d, arena);
    if (chance(d, 40))
        r->range_end = some_end(d, arena);
    r->prev_kv = chance(d, 40);
    return r;
}

static Etcdserverpb__Compare *some_compare(struct differ *d, struct arena *arena)
{
    Etcdserverpb__Compare *c = arena_alloc(arena, sizeof(*c));
    etcdserverpb__compare__init(c);
    c->key = some_key(d, arena);
    if (chance(d, 25))
        c->range_end = some_end(d, arena);
    c->result = (Etcdserverpb__Compare__CompareResult)below(d, 4);
    int64_t number = chance(d, 50) ? (int64_t)below(d, 4) : d->revision - (int64_t)below(d, 40);
    switch (below(d, 5)) {
    case 0:
        c->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION;
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
        c->version = number;
        break;
    case 1:
        c->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
        c->create_revision = number;
        break;
    case 2:
        c->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD;
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION;
        c->mod_revision = number;
        break;
    case 3:
        c->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
        c->value = some_value(d, arena);
        break;
    default:
        c->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__LEASE;
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE;
        c->lease = (int64_t)below(d, 4);
    }
    return c;
}

static Etcdserverpb__TxnRequest *some_txn(struct differ *d, struct arena *arena, int depth);

static Etcdserverpb__RequestOp *some_op(struct differ *d, struct arena *arena, int depth)
{
    Etcdserverpb__RequestOp *op = arena_alloc(arena, sizeof(*op));
    etcdserverpb__request_op__init(op);
    switch (below(d, depth < 3 ? 8 : 7)) {
    case 0:
    case 1:
    case 2:
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
        op->request_put = some_put(d, arena, false);
        break;
    case 3:
    case 4:
    case 5:
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
        op->request_range = some_range(d, arena);
        break;
    case 6:
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
        op->request_delete_range = some_delete(d, arena);
        break;
    default:
        op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN;
        op->request_txn = some_txn(d, arena, depth + 1);
    }
    return op;
}

static Etcdserverpb__RequestOp **some_ops(struct differ *d, struct arena *arena, int depth,
                                          size_t *ret_n)
{
    size_t n = below(d, 200) == 0 ? 129 : below(d, 5);
    Etcdserverpb__RequestOp **ops = arena_alloc(arena, (n + 1) * sizeof(*ops));
    for (size_t i = 0; i < n; i++)
        ops[i] = some_op(d, arena, depth);
    *ret_n = n;
    return ops;
}

static Etcdserverpb__TxnRequest *some_txn(struct differ *d, struct arena *arena, int depth)
{
    Etcdserverpb__TxnRequest *r = arena_alloc(arena, sizeof(*r));
    etcdserverpb__txn_request__init(r);
    r->n_compare = below(d, 3);
    r->compare = arena_alloc(arena, (r->n_compare + 1) * sizeof(*r->compare));
    for (size_t i = 0; i < r->n_compare; i++)
        r->compare[i] = some_compare(d, arena);
    r->success = some_ops(d, arena, depth, &r->n_success);
    r->failure = some_ops(d, arena, depth, &r->n_failure);
    return r;
}

static void ask_lease(struct differ *d, struct arena *arena)
{
    int64_t id = 1 + (int64_t)below(d, 6);
    if (chance(d, 50)) {
        Etcdserverpb__LeaseGrantRequest *r = arena_alloc(arena, sizeof(*r));
        etcdserverpb__lease_grant_request__init(r);
        r->id = id;
        r->ttl = chance(d, 5) ? 9000000001 : 3600 + (int64_t)below(d, 100);
        ask_and_compare(d, "/etcdserverpb.Lease/LeaseGrant", &r->base,
                        &etcdserverpb__lease_grant_response__descriptor);
    } else if (chance(d, 50)) {
        Etcdserverpb__LeaseRevokeRequest *r = arena_alloc(arena, sizeof(*r));
        etcdserverpb__lease_revoke_request__init(r);
        r->id = id;
        ask_and_compare(d, "/etcdserverpb.Lease/LeaseRevoke", &r->base,
                        &etcdserverpb__lease_revoke_response__descriptor);
    } else {
        Etcdserverpb__LeaseTimeToLiveRequest *r = arena_alloc(arena, sizeof(*r));
        etcdserverpb__lease_time_to_live_request__init(r);
        r->id = id;
        r->keys = true;
        ask(d, "/etcdserverpb.Lease/LeaseTimeToLive", &r->base,
            &etcdserverpb__lease_time_to_live_response__descriptor);
        for (int i = 0; i < 2; i++) {
            Etcdserverpb__LeaseTimeToLiveResponse *a = (void *)d->answers[i].message;
            if (a && a->ttl > 0) /* the clock runs on between the two */
                a->ttl = 1;
            if (a) { /* etcd lists the keys in the order of a hash table */
                for (size_t x = 1; x < a->n_keys; x++) {
                    for (size_t y = x; y > 0; y--) {
                        ProtobufCBinaryData *p = &a->keys[y - 1], *q = &a->keys[y], t = *p;
                        if (bytes_compare(bytes_of(p->data, p->len), bytes_of(q->data, q->len)) <=
                            0)
                            break;
                        *p = *q;
                        *q = t;
                    }
                }
            }
        }
        compare(d, "/etcdserverpb.Lease/LeaseTimeToLive", &r->base);
    }
}

static void ask_compaction(struct differ *d, struct arena *arena)
{
    Etcdserverpb__CompactionRequest *r = arena_alloc(arena, sizeof(*r));
    etcdserverpb__compaction_request__init(r);
    r->physical = true; /* so that HashKV, asked next, is past it on both */
    r->revision =
        chance(d, 15) ? d->revision + 1
        : chance(d, 15)
            ? d->compacted
            : d->compacted + (int64_t)below(d, (uint64_t)(d->revision - d->compacted + 1));
    ask_and_compare(d, "/etcdserverpb.KV/Compact", &r->base,
                    &etcdserverpb__compaction_response__descriptor);
    if (d->answers[0].code == ERR_OK)
        d->compacted = r->revision;
}

static void compare_hashes(struct differ *d)
{
    Etcdserverpb__HashKVRequest r = ETCDSERVERPB__HASH_KVREQUEST__INIT;
    ask_and_compare(d, "/etcdserverpb.Maintenance/HashKV", &r.base,
                    &etcdserverpb__hash_kvresponse__descriptor);
}

static void note_revision(struct differ *d, const Etcdserverpb__ResponseHeader *header)
{
    if (header && header->revision > d->revision)
        d->revision = header->revision;
}

static void one_request(struct differ *d, struct arena *arena)
{
    uint64_t kind = below(d, 100);
    if (kind < 35) {
        ask_and_compare(d, "/etcdserverpb.KV/Put", &some_put(d, arena, true)->base,
                        &etcdserverpb__put_response__descriptor);
        if (d->answers[0].message)
            note_revision(d, ((Etcdserverpb__PutResponse *)d->answers[0].message)->header);
    } else if (kind < 60) {
        ask_and_compare(d, "/etcdserverpb.KV/Range", &some_range(d, arena)->base,
                        &etcdserverpb__range_response__descriptor);
    } else if (kind < 70) {
        ask_and_compare(d, "/etcdserverpb.KV/DeleteRange", &some_delete(d, arena)->base,
                        &etcdserverpb__delete_range_response__descriptor);
        if (d->answers[0].message)
            note_revision(d, ((Etcdserverpb__DeleteRangeResponse *)d->answers[0].message)->header);
    } else if (kind < 92) {
        ask_and_compare(d, "/etcdserverpb.KV/Txn", &some_txn(d, arena, 0)->base,
                        &etcdserverpb__txn_response__descriptor);
        if (d->answers[0].message)
            note_revision(d, ((Etcdserverpb__TxnResponse *)d->answers[0].message)->header);
    } else if (kind < 99) {
        ask_lease(d, arena);
    } else {
        ask_compaction(d, arena);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: differ URL-A URL-B SEED COUNT\n");
        return 2;
    }
    struct differ d = {.random = strtoull(argv[3], NULL, 0), .revision = 1, .compacted = 0};
    uint64_t count = strtoull(argv[4], NULL, 0);
    uv_loop_init(&d.loop);
    for (int i = 0; i < 2; i++) {
        const char *const urls[] = {argv[1 + i]};
        struct error err;
        struct client_config config = {.endpoints = urls, .endpoint_count = 1};
        if (client_new(&d.loop, &config, &d.clients[i], &err) != ERR_OK) {
            fprintf(stderr, "differ: %s\n", err.message);
            return 2;
        }
    }
    printf("seed %s\n", argv[3]);
    struct arena arena = {0};
    for (d.number = 1; d.number <= count; d.number++) {
        one_request(&d, &arena);
        arena_free(&arena);
        if (d.number % 1000 == 0)
            compare_hashes(&d);
    }
    compare_hashes(&d);
    for (int i = 0; i < 2; i++) {
        if (d.answers[i].message)
            protobuf_c_message_free_unpacked(d.answers[i].message, NULL);
        client_free(d.clients[i]);
    }
    while (uv_run(&d.loop, UV_RUN_DEFAULT))
        ;
    uv_loop_close(&d.loop);
    printf("%" PRIu64 " requests, all answers equal, revision %" PRId64 "\n", count, d.revision);
    return 0;
}
