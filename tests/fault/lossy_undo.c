/* Takes back what a killed process had written and not synced: the power loss after the kill. See lossy.h.
 *
 *     lossy_undo JOURNAL          all of it is lost
 *     lossy_undo JOURNAL SEED     a random part: of the bytes sector by sector, of the names in a folder the last ones,
 *                                 as file systems with a journal lose them; a file's size stays or goes back
 *
 * The processes that wrote the journal have ended. It is of no use afterwards: make it anew before the next start.
 * Prints what was undone and what was kept, as NAME=NUMBER. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/memory.h"
#include "tests/fault/lossy.h"

/* What is known of a file or a folder. */
struct node {
    uint64_t inode, settled; /* its records before this number are on the disk */
    bool stopped;            /* a folder: its earlier changes are kept */
    bool keeps_size;
};

struct undo {
    const char *journal;
    uint64_t seed, random; /* seed 0: everything is undone */
    struct lossy_record **records;
    size_t record_count, record_cap;
    struct node *nodes;
    size_t node_count, node_cap;
    uint64_t *kept; /* a set of (inode, sector) that go back no further; open addressing, 0: free */
    size_t kept_count, kept_cap;
    uint64_t writes, bytes, sizes, names, kept_sectors, kept_names, kept_sizes;
};

static _Noreturn void fail(const char *what, const char *path)
{
    fprintf(stderr, "lossy_undo: %s %s: %s\n", what, path, strerror(errno));
    exit(2);
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static bool coin(struct undo *u)
{
    u->random = mix(u->random);
    return u->random & 1;
}

static struct node *node_of(struct undo *u, uint64_t inode)
{
    for (size_t i = 0; i < u->node_count; i++) {
        if (u->nodes[i].inode == inode)
            return &u->nodes[i];
    }
    if (u->node_count == u->node_cap) {
        u->node_cap = u->node_cap ? 2 * u->node_cap : 64;
        u->nodes = xrealloc(u->nodes, u->node_cap * sizeof(*u->nodes));
    }
    u->nodes[u->node_count] =
        (struct node){.inode = inode, .keeps_size = u->seed && mix(u->seed ^ inode) & 1};
    return &u->nodes[u->node_count++];
}

/* ---- Reading ----------------------------------------------------------------------------------- */

static char *read_whole(const char *path, size_t *ret_n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        fail("open", path);
    char *p = xmalloc((size_t)st.st_size + 1);
    size_t n = 0;
    for (ssize_t rc; n < (size_t)st.st_size; n += (size_t)rc) {
        rc = read(fd, p + n, (size_t)st.st_size - n);
        if (rc <= 0)
            fail("read", path);
    }
    close(fd);
    *ret_n = n;
    return p;
}

static size_t record_bytes(const struct lossy_record *r)
{
    return sizeof(*r) + r->path_bytes + r->other_path_bytes + r->saved_bytes;
}

static const char *path_of(const struct lossy_record *r)
{
    return (const char *)(r + 1);
}

static const char *other_path_of(const struct lossy_record *r)
{
    return path_of(r) + r->path_bytes;
}

static const char *saved_of(const struct lossy_record *r)
{
    return other_path_of(r) + r->other_path_bytes;
}

/* The kill may have cut off the last record: then its call was not made. Records are copied: they are not aligned. */
static void take_log(struct undo *u, const char *p, size_t n)
{
    struct lossy_record head;
    for (size_t at = 0; n - at >= sizeof(head);) {
        memcpy(&head, p + at, sizeof(head));
        if (head.magic != LOSSY_MAGIC) {
            errno = EBADMSG;
            fail("damaged", u->journal);
        }
        size_t size = record_bytes(&head);
        if (size > n - at)
            break;
        if (u->record_count == u->record_cap) {
            u->record_cap = u->record_cap ? 2 * u->record_cap : 4096;
            u->records = xrealloc(u->records, u->record_cap * sizeof(struct lossy_record *));
        }
        u->records[u->record_count] = xmalloc(size);
        memcpy(u->records[u->record_count++], p + at, size);
        at += size;
    }
}

static void read_journal(struct undo *u)
{
    char path[1024];
    for (unsigned i = 1;; i++) {
        snprintf(path, sizeof(path), "%s/log.%u", u->journal, i);
        if (access(path, F_OK) != 0)
            break;
        size_t n;
        char *p = read_whole(path, &n);
        take_log(u, p, n);
        free(p);
    }
    for (size_t i = 0; i < u->record_count; i++) {
        const struct lossy_record *r = u->records[i];
        assert(i == 0 || r->number > u->records[i - 1]->number);
        struct node *node = r->kind == LOSSY_SYNC ? node_of(u, r->inode) : NULL;
        if (node && r->upto > node->settled)
            node->settled = r->upto;
    }
}

/* ---- Bytes ------------------------------------------------------------------------------------- */

static bool is_kept(struct undo *u, uint64_t key, bool add)
{
    if (2 * u->kept_count >= u->kept_cap) {
        size_t old_cap = u->kept_cap;
        uint64_t *old = u->kept;
        u->kept_cap = old_cap ? 2 * old_cap : 4096;
        u->kept = xcalloc(u->kept_cap, sizeof(*u->kept));
        u->kept_count = 0;
        for (size_t i = 0; i < old_cap; i++) {
            if (old[i])
                is_kept(u, old[i], true);
        }
        free(old);
    }
    size_t i = key & (u->kept_cap - 1);
    while (u->kept[i] && u->kept[i] != key)
        i = (i + 1) & (u->kept_cap - 1);
    if (u->kept[i] == key)
        return true;
    if (add) {
        u->kept[i] = key;
        u->kept_count++;
    }
    return false;
}

/* Whether this sector goes back to what it was before the record; once it doesn't, it goes back no further. */
static bool goes_back(struct undo *u, uint64_t inode, uint64_t sector)
{
    if (!u->seed)
        return true;
    uint64_t key = mix(mix(inode) ^ sector) | 1;
    if (is_kept(u, key, false))
        return false;
    if (!coin(u))
        return true;
    is_kept(u, key, true);
    u->kept_sectors++;
    return false;
}

static int open_kept(struct undo *u, uint64_t inode)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/inodes/%llu", u->journal, (unsigned long long)inode);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fail("open", path);
    return fd;
}

static void put_back(int fd, const char *p, uint64_t from, uint64_t to)
{
    while (from < to) {
        ssize_t rc = pwrite(fd, p, to - from, (off_t)from);
        if (rc <= 0)
            fail("write", "a file");
        p += rc;
        from += (uint64_t)rc;
    }
}

static uint64_t size_of(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        fail("stat", "a file");
    return (uint64_t)st.st_size;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void undo_write(struct undo *u, const struct lossy_record *r, const struct node *node)
{
    static const char zeros[LOSSY_SECTOR];
    int fd = open_kept(u, r->inode);
    uint64_t end = r->offset + r->length, size = size_of(fd);
    for (uint64_t at = r->offset, next; at < end; at = next) {
        next = least((at / LOSSY_SECTOR + 1) * LOSSY_SECTOR, end);
        if (!goes_back(u, r->inode, at / LOSSY_SECTOR))
            continue;
        uint64_t had =
            r->offset + r->saved_bytes; /* up to here there was something, then nothing */
        uint64_t middle = least(at > had ? at : had, next);
        put_back(fd, saved_of(r) + (at - r->offset), at, least(middle, size));
        put_back(fd, zeros, middle, least(next, size));
        u->bytes += next - at;
    }
    if (end > r->old_size && node->keeps_size)
        u->kept_sizes++;
    else if (size > r->old_size && end > r->old_size && ftruncate(fd, (off_t)r->old_size) != 0)
        fail("truncate", "a file");
    u->writes++;
    close(fd);
}

static void undo_size(struct undo *u, const struct lossy_record *r, const struct node *node)
{
    if (node->keeps_size) {
        u->kept_sizes++;
        return;
    }
    int fd = open_kept(u, r->inode);
    if (ftruncate(fd, (off_t)r->old_size) != 0)
        fail("truncate", "a file");
    put_back(fd, saved_of(r), r->offset, r->offset + r->saved_bytes);
    u->sizes++;
    close(fd);
}

/* ---- Names ------------------------------------------------------------------------------------- */

static uint64_t inode_at(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_ino : 0;
}

static void name_again(struct undo *u, uint64_t inode, const char *path)
{
    char kept[1024];
    snprintf(kept, sizeof(kept), "%s/inodes/%llu", u->journal, (unsigned long long)inode);
    if (link(kept, path) != 0)
        fail("link", path);
}

/* What is not as the call left it was never made: the process was killed before. */
static void undo_name(struct undo *u, const struct lossy_record *r)
{
    const char *path = path_of(r), *other = other_path_of(r);
    char gone[1024];
    switch (r->kind) {
    case LOSSY_CREATE:
        if (inode_at(path) == r->inode && unlink(path) != 0)
            fail("unlink", path);
        break;
    case LOSSY_MKDIR: /* with all that is in it, synced or not */
        snprintf(gone, sizeof(gone), "%s/gone.%zu", u->journal, (size_t)u->names);
        if (inode_at(path) && rename(path, gone) != 0)
            fail("rename", path);
        break;
    case LOSSY_RENAME:
        if (inode_at(other) != r->inode)
            break;
        if (rename(other, path) != 0)
            fail("rename", other);
        if (r->other_inode)
            name_again(u, r->other_inode, other);
        break;
    case LOSSY_UNLINK:
        if (inode_at(path) != r->inode)
            name_again(u, r->inode, path);
        break;
    default:
        assert(r->kind == LOSSY_RMDIR);
        if (mkdir(path, 0700) != 0)
            fail("mkdir", path);
    }
    u->names++;
}

static bool name_settled(struct undo *u, const struct lossy_record *r)
{
    return r->number < node_of(u, r->folder)->settled &&
           (!r->other_folder || r->number < node_of(u, r->other_folder)->settled);
}

/* Names come and go in order: a folder that keeps one change keeps the earlier ones. */
static bool name_kept(struct undo *u, const struct lossy_record *r)
{
    bool kept = node_of(u, r->folder)->stopped ||
                (r->other_folder && node_of(u, r->other_folder)->stopped) || (u->seed && coin(u));
    if (kept) {
        node_of(u, r->folder)->stopped = true;
        if (r->other_folder)
            node_of(u, r->other_folder)->stopped = true;
    }
    return kept;
}

static void undo_record(struct undo *u, const struct lossy_record *r)
{
    if (r->kind == LOSSY_SYNC)
        return;
    if (r->kind == LOSSY_WRITE || r->kind == LOSSY_SIZE) {
        const struct node *node = node_of(u, r->inode);
        if (r->number >= node->settled)
            (r->kind == LOSSY_WRITE ? undo_write : undo_size)(u, r, node);
    } else if (!name_settled(u, r)) {
        if (name_kept(u, r))
            u->kept_names++;
        else
            undo_name(u, r);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: lossy_undo JOURNAL [SEED]\n");
        return 2;
    }
    struct undo u = {.journal = argv[1], .seed = argc == 3 ? strtoull(argv[2], NULL, 0) : 0};
    u.random = u.seed;
    read_journal(&u);
    for (size_t i = u.record_count; i-- > 0;)
        undo_record(&u, u.records[i]);
    printf("records=%zu writes=%llu bytes=%llu sizes=%llu names=%llu kept_sectors=%llu "
           "kept_sizes=%llu kept_names=%llu\n",
           u.record_count, (unsigned long long)u.writes, (unsigned long long)u.bytes,
           (unsigned long long)u.sizes, (unsigned long long)u.names,
           (unsigned long long)u.kept_sectors, (unsigned long long)u.kept_sizes,
           (unsigned long long)u.kept_names);
    for (size_t i = 0; i < u.record_count; i++)
        free(u.records[i]);
    free(u.records);
    free(u.nodes);
    free(u.kept);
    return 0;
}
