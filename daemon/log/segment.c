/* The log's files: made, taken into use, recycled, removed. Every step leaves the folder in a state
 * from which recovery goes on, whichever of the names' changes reached the disk:
 *
 *   spare -> segment   contents and head are synced before the name changes, the name is durable
 *                      before the first batch is written
 *   segment -> spare   the name's change is durable before the contents change */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/log/wal_internal.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

char *wal_segment_path(const struct wal_dir *d, uint64_t seq)
{
    return xasprintf("%s/%016llx.wal", d->path, (unsigned long long)seq);
}

bool wal_segment_parse(const char *name, uint64_t *ret_seq)
{
    uint64_t seq = 0;
    for (int i = 0; i < 16; i++) {
        char c = name[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        seq = seq << 4 | (uint64_t)digit;
    }
    *ret_seq = seq;
    return seq > 0 && strcmp(name + 16, ".wal") == 0;
}

void wal_dir_add(struct wal_dir *d, const struct wal_segment *s)
{
    if (d->segment_count == d->segment_cap) {
        d->segment_cap = d->segment_cap ? d->segment_cap * 2 : 8;
        d->segments = xrealloc(d->segments, d->segment_cap * sizeof(*d->segments));
    }
    d->segments[d->segment_count++] = *s;
}

enum errc wal_corrupt(const struct wal_dir *d, uint64_t seq, uint64_t offset, const char *what,
                      uint64_t first, uint64_t last, struct error *err)
{
    char entries[64] = "entries unknown";
    if (first > 0 && last >= first)
        snprintf(entries, sizeof(entries), "entries %llu to %llu", (unsigned long long)first,
                 (unsigned long long)last);
    else if (first > 0)
        snprintf(entries, sizeof(entries), "entries from %llu on", (unsigned long long)first);
    return error_set(err, ERR_CORRUPT, "%s/%016llx.wal at %llu: %s (%s); %s", d->path,
                     (unsigned long long)seq, (unsigned long long)offset, what, entries,
                     WAL_WAY_OUT);
}

void wal_dir_free(struct wal_dir *d)
{
    free(d->segments);
    free(d->path);
    *d = (struct wal_dir){0};
}

/* The spare's file with at least `bytes` allocated; made if it is missing. The caller closes it, also
 * after a failure to allocate. */
static enum errc open_spare(struct wal_dir *d, const char *path, uint64_t bytes,
                            struct disk_file **ret_file, uint64_t *ret_bytes, struct error *err)
{
    struct disk_file *file;
    enum errc rc = d->disk->open(d->disk, path, DISK_WRITE | DISK_CREATE, &file, err);
    if (rc)
        return rc;
    *ret_file = file;
    rc = d->disk->size(d->disk, file, ret_bytes, err);
    if (rc || (d->has_spare && *ret_bytes >= bytes))
        return rc;
    *ret_bytes = bytes > *ret_bytes ? bytes : *ret_bytes;
    return d->disk->allocate(d->disk, file, *ret_bytes, err);
}

enum errc wal_spare_make(struct wal_dir *d, struct error *err)
{
    assert(!d->has_spare);
    char *path = xasprintf("%s/%s", d->path, WAL_SPARE);
    struct disk_file *file = NULL;
    uint64_t bytes;
    enum errc rc = open_spare(d, path, d->segment_bytes, &file, &bytes, err);
    if (!rc)
        rc = d->disk->sync(d->disk, file, err);
    if (file)
        d->disk->close(d->disk, file);
    if (!rc) {
        d->has_spare = true;
        d->spare_bytes = bytes;
    } else if (file && rc == ERR_NO_SPACE) {
        d->disk->unlink(d->disk, path, NULL); /* gives back what it got */
    }
    free(path);
    return rc;
}

static enum errc write_head(struct wal_dir *d, struct disk_file *file, struct wal_head *head,
                            uint32_t *ret_chain, struct error *err)
{
    uint8_t sector[WAL_SECTOR];
    head->nonce = d->env->random(d->env);
    *ret_chain = wal_head_encode(head, sector);
    enum errc rc = d->disk->write(d->disk, file, 0, sector, sizeof(sector), err);
    return rc ? rc : d->disk->sync(d->disk, file, err);
}

/* What could not become a segment for want of space is a spare as before, or no file at all. */
static void give_back(struct wal_dir *d, const char *spare, struct disk_file *file)
{
    if (!d->has_spare)
        d->disk->unlink(d->disk, spare, NULL);
    else if (file)
        d->disk->truncate(d->disk, file, d->spare_bytes, NULL);
}

enum errc wal_segment_create(struct wal_dir *d, struct wal_head *head, uint64_t bytes,
                             struct disk_file **ret_file, uint32_t *ret_chain, struct error *err)
{
    assert(d->segment_count == 0 || d->segments[d->segment_count - 1].seq + 1 == head->seq);
    bytes = bytes > d->segment_bytes ? wal_round_up(bytes) : d->segment_bytes;
    char *spare = xasprintf("%s/%s", d->path, WAL_SPARE);
    char *path = wal_segment_path(d, head->seq);
    struct disk_file *file = NULL;
    struct wal_segment segment = {.seq = head->seq};
    uint32_t chain;
    enum errc rc = open_spare(d, spare, bytes, &file, &segment.bytes, err);
    head->bytes = segment.bytes;
    if (!rc)
        rc = write_head(d, file, head, &chain, err);
    if (!rc)
        rc = d->disk->rename(d->disk, spare, path, err);
    if (rc == ERR_NO_SPACE)
        give_back(d, spare, file);
    if (rc)
        goto out;
    d->has_spare = false;
    if (!MUTANT(lost_dir_sync)) /* the new name may be gone after a crash */
        rc = d->disk->sync_dir(d->disk, d->path, err);
    if (rc == ERR_NO_SPACE) /* too late to try again: the name has changed */
        rc = error_set(err, ERR_IO, "sync %s: no space left", d->path);
    if (rc)
        goto out;
    wal_dir_add(d, &segment);
    *ret_file = file;
    *ret_chain = chain;
    file = NULL;
out:
    if (file)
        d->disk->close(d->disk, file);
    free(spare);
    free(path);
    return rc;
}

bool wal_segments_droppable(const struct wal_dir *d, uint64_t index)
{
    return d->segment_count > 1 && d->segments[0].max_index <= index;
}

/* A segment of an unusual size is not kept: the next one is to be of the configured size. */
static enum errc drop_oldest(struct wal_dir *d, struct error *err)
{
    struct wal_segment oldest = d->segments[0];
    bool recycle = !d->has_spare && oldest.bytes == d->segment_bytes;
    char *path = wal_segment_path(d, oldest.seq);
    enum errc rc;
    if (recycle) {
        char *spare = xasprintf("%s/%s", d->path, WAL_SPARE);
        rc = d->disk->rename(d->disk, path, spare, err);
        free(spare);
    } else {
        rc = d->disk->unlink(d->disk, path, err);
    }
    free(path);
    if (rc)
        return rc;
    d->segment_count--;
    memmove(d->segments, d->segments + 1, d->segment_count * sizeof(*d->segments));
    if (recycle) {
        d->has_spare = true;
        d->spare_bytes = oldest.bytes;
    }
    return ERR_OK;
}

enum errc wal_segments_drop(struct wal_dir *d, uint64_t index, bool *ret_dropped, struct error *err)
{
    *ret_dropped = false;
    while (wal_segments_droppable(d, index)) {
        enum errc rc = drop_oldest(d, err);
        if (rc)
            return rc;
        *ret_dropped = true;
    }
    return *ret_dropped ? d->disk->sync_dir(d->disk, d->path, err) : ERR_OK;
}
