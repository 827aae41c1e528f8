#include "tests/sim/hashes.h"

#include <stdlib.h>

#include "lib/base/memory.h"
#include "tests/sim/sim.h"

struct hash_asked {
    struct simnode *node;
    bool answered;
    enum errc code;
    uint32_t hash;
    int64_t compacted;
};

static void on_hash(void *ctx, enum errc code, uint32_t hash, int64_t compacted, int64_t revision)
{
    struct hash_asked *a = ctx;
    a->answered = true;
    a->code = code;
    a->hash = hash;
    a->compacted = compacted;
    TRACE4(&a->node->sim->world, "n%llu has hash %llx at revision %llu: %llu", a->node->id, hash,
           revision, code);
    if (code == ERR_CORRUPT)
        rot_found(a->node, "its history, for a hash");
}

void hashes_ask(struct sim *s)
{
    struct hashes *h = &s->hashes;
    h->all = xcalloc(s->node_count, sizeof(*h->all));
    for (size_t i = 0; i < s->node_count; i++) {
        struct simnode *n = s->nodes[i];
        if (!n->replica)
            continue;
        struct hash_asked *a = &h->all[h->count++];
        a->node = n;
        mvcc_hash_kv(replica_store(n->replica), s->model.last, on_hash, a);
        simnode_settle(n);
    }
}

/* Who wasn't there yet, or isn't there any more, has none. */
void hashes_check(struct sim *s)
{
    struct hashes *h = &s->hashes;
    const struct hash_asked *first = NULL;
    for (size_t i = 0; i < h->count; i++) {
        const struct hash_asked *a = &h->all[i];
        if (!a->answered || a->code != ERR_OK)
            continue;
        first = first ? first : a;
        if (a->compacted == first->compacted && a->hash != first->hash)
            world_fail(&s->world, "members %llu and %llu have different hashes",
                       (unsigned long long)first->node->id, (unsigned long long)a->node->id);
    }
    free(h->all);
}
