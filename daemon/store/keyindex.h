/* The key index: for every key its revisions since the last compaction, in memory.
 *
 * etcd's key_index.go keeps generations, each from a creation to a tombstone. Here they are implied: a
 * key has one ascending list of revisions, each marked if it is a tombstone, and a generation ends at a
 * mark. The facts of the newest revision stand in the entry, so a put needs no disk to know the
 * version and creation that it continues.
 *
 * A revision is packed into 63 bits as main << 23 | sub: the rowid of its row. One thread. */
#ifndef STORE_KEYINDEX_H
#define STORE_KEYINDEX_H

#include "daemon/store/btree.h"
#include "lib/base/bytes.h"

#define REV_SUB_BITS 23 /* 8 million changes an entry, and 2^40 entries that change something */
#define REV_SUB_MAX ((1 << REV_SUB_BITS) - 1)
#define REV_MAIN_MAX ((INT64_C(1) << (63 - REV_SUB_BITS)) - 1)

static inline uint64_t rev_id(int64_t main, int32_t sub)
{
    return (uint64_t)main << REV_SUB_BITS | (uint64_t)sub;
}
static inline int64_t rev_main(uint64_t id)
{
    return (int64_t)(id >> REV_SUB_BITS);
}
static inline int32_t rev_sub(uint64_t id)
{
    return (int32_t)(id & REV_SUB_MAX);
}

/* What the index keeps of a revision that is a key's newest. */
struct key_facts {
    int64_t create_revision, version, lease; /* 0 of a tombstone */
    uint64_t stamp;
};

struct key_entry {
    struct btree_item
        item; /* first; weight 1: the key lives, 0: its newest revision is a tombstone */
    struct key_facts facts;
    uint32_t n, cap; /* of revisions; n >= 1; cap 1: it stands in `one` */
    union {
        uint64_t one;
        uint64_t *many;
    }; /* ascending: id << 1 | tombstone */
    uint8_t key[];
};

struct keyindex {
    struct btree tree;
    uint64_t revisions; /* of all keys */
};

void keyindex_free(struct keyindex *x);

/* NULL: no revision of it is known. */
struct key_entry *keyindex_find(const struct keyindex *x, struct bytes key);

/* Adds the newest revision of a key: id is above all that the key has. */
struct key_entry *keyindex_add(struct keyindex *x, struct bytes key, uint64_t id, bool tombstone,
                               const struct key_facts *facts);

static inline bool key_entry_alive(const struct key_entry *e)
{
    return e->item.weight != 0;
}
uint64_t key_entry_newest(const struct key_entry *e);

/* The revision that the key was at as of main revision `main`; false: it did not live then. */
bool key_entry_at(const struct key_entry *e, int64_t main, uint64_t *ret_id);

/* Calls for each live key in [key, end) as mvcc_range has them (end.p NULL: the key alone). */
uint64_t keyindex_count(const struct keyindex *x, struct bytes key, struct bytes end);

/* The first entry of a range, and what is beyond it. */
struct btree_cursor keyindex_seek(const struct keyindex *x, struct bytes key);
bool keyindex_in_range(const struct btree_cursor *c, struct bytes key, struct bytes end);

/* A growing list of revision ids. */
struct rev_list {
    uint64_t *ids;
    size_t n, cap;
};
void rev_list_add(struct rev_list *l, uint64_t id);
void rev_list_free(struct rev_list *l);

/* A slice of a compaction at main revision `at`: looks at up to keys_max keys from *from on (empty:
 * from the first), forgets what the compaction removes and appends it to *removed, and stops early
 * when that has rows_max ids. Sets *from to where to go on; false: that was the last key.
 *
 * Of a key the newest revision at or below `at` stays. If that one is a tombstone it goes as well,
 * unless it is of `at` itself: a watch that begins at the compaction revision is allowed (by etcd
 * too) and must be told of that deletion. */
bool keyindex_compact(struct keyindex *x, int64_t at, size_t keys_max, size_t rows_max,
                      struct buf *from, struct rev_list *removed);

/* A slice of the walk that HashKV needs: appends to *kept the revisions at or below `below` that are
 * their key's state as of `at` and not tombstones. *live gets the number of keys that live as of
 * `at`, whatever the revision, added. As above for the rest. */
bool keyindex_keep(const struct keyindex *x, int64_t at, int64_t below, size_t keys_max,
                   struct buf *from, struct rev_list *kept, uint64_t *live);

#endif
