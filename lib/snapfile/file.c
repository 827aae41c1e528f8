#include "lib/snapfile/file.h"

#include <stdlib.h>

#include "lib/base/crc32c.h"
#include "lib/base/memory.h"

#define PIECE (1024u * 1024)
#define BBOLT_MAGIC 0xed0cdaedu /* in the meta page behind a page header of 16 bytes */

struct reader {
    struct disk *disk;
    struct disk_file *file;
    const char *path;
    uint64_t size;
    uint8_t *piece; /* PIECE bytes */
    struct buf in;  /* not yet a whole frame */
    enum errc (*each)(void *ctx, const struct record *record, struct error *err);
    void *ctx;
    struct snapfile_info info;
    bool ended; /* the tail was read */
};

static enum errc damaged(const struct reader *r, struct error *err, const char *what)
{
    return error_set(err, ERR_CORRUPT, "%s: the snapshot is damaged: %s", r->path, what);
}

/* The piece at `at`, as long as it must be there. */
static enum errc read_piece(struct reader *r, uint64_t at, size_t n, struct error *err)
{
    size_t got = 0;
    enum errc code = r->disk->read(r->disk, r->file, at, r->piece, n, &got, err);
    if (code == ERR_OK && got < n)
        code = damaged(r, err, "it became shorter while it was read");
    return code;
}

static size_t piece_at(uint64_t at, uint64_t end)
{
    return end - at < PIECE ? (size_t)(end - at) : PIECE;
}

/* ---- The whole ----------------------------------------------------------------------------------- */

static enum errc check_kind(struct reader *r, struct error *err)
{
    enum errc code = read_piece(r, 0, piece_at(0, r->size < 64 ? r->size : 64), err);
    if (code != ERR_OK)
        return code;
    if (r->size >= 20 && get_le32(r->piece + 16) == BBOLT_MAGIC)
        return error_set(err, ERR_INVALID,
                         "%s is a snapshot of etcd (a bbolt database), which quorumd can't read: "
                         "restore it with etcdctl, start etcd on it, and copy the keys over",
                         r->path);
    if (r->size < 4 || !frame_has_magic(bytes_of(r->piece, 4)))
        return error_set(err, ERR_INVALID,
                         "%s is no snapshot of quorumd: make one with quorumctl snapshot save",
                         r->path);
    return ERR_OK;
}

static enum errc check_hash(struct reader *r, struct error *err)
{
    uint8_t digest[SHA256_BYTES];
    struct sha256 *hash = sha256_new();
    enum errc code = ERR_OK;
    uint64_t end = r->size - SHA256_BYTES;
    for (uint64_t at = 0; code == ERR_OK && at < end; at += PIECE) {
        size_t n = piece_at(at, end);
        code = read_piece(r, at, n, err);
        if (code == ERR_OK)
            sha256_add(hash, r->piece, n);
    }
    if (code == ERR_OK)
        code = read_piece(r, end, SHA256_BYTES, err);
    sha256_end(hash, digest);
    sha256_free(hash);
    if (code == ERR_OK && memcmp(digest, r->piece, SHA256_BYTES) != 0)
        code = damaged(r, err, "its SHA-256 is not the one that stands at its end");
    return code;
}

static enum errc check_whole(struct reader *r, struct error *err)
{
    if (r->size % SNAPFILE_ALIGN != SHA256_BYTES)
        return error_set(err, ERR_CORRUPT,
                         "%s: the snapshot is cut off, or was never complete: its %llu bytes don't "
                         "end with a SHA-256",
                         r->path, (unsigned long long)r->size);
    return check_hash(r, err);
}

/* ---- Record by record ---------------------------------------------------------------------------- */

static enum errc take_record(struct reader *r, const struct record *record, struct error *err)
{
    if (r->ended)
        return damaged(r, err, "records follow its end");
    if (record->type == RECORD_HEAD)
        r->info.head = record->head;
    else if (record->type == RECORD_TAIL)
        r->ended = true;
    else
        r->info.keys++;
    return r->each ? r->each(r->ctx, record, err) : ERR_OK;
}

static enum errc take_frames(struct reader *r, uint32_t *seq, struct error *err)
{
    size_t at = 0, n = 0;
    enum errc code;
    do {
        struct bytes payload = BYTES_EMPTY;
        code = frame_take(bytes_of(r->in.p + at, r->in.n - at), *seq, &n, &payload, err);
        if (n > 0)
            r->info.crc = crc32c(r->info.crc, r->in.p + at, n);
        while (code == ERR_OK && payload.n > 0) {
            struct record record;
            code = record_take(&payload, &record, err);
            if (code == ERR_OK)
                code = take_record(r, &record, err);
        }
        at += n;
        *seq += n > 0;
    } while (code == ERR_OK && n > 0 && !r->ended);
    buf_consume(&r->in, at);
    return code;
}

static enum errc walk(struct reader *r, struct error *err)
{
    uint64_t end = r->size - SHA256_BYTES;
    uint32_t seq = 0;
    enum errc code = ERR_OK;
    for (uint64_t at = 0; code == ERR_OK && at < end; at += PIECE) {
        size_t n = piece_at(at, end);
        code = read_piece(r, at, n, err);
        if (code != ERR_OK)
            break;
        buf_append(&r->in, r->piece, n);
        if (!r->ended)
            code = take_frames(r, &seq, err);
    }
    if (code == ERR_OK && (!r->ended || r->in.n >= SNAPFILE_ALIGN))
        code = damaged(r, err, "it does not end where it should");
    for (size_t i = 0; code == ERR_OK && i < r->in.n; i++)
        if (r->in.p[i] != 0)
            code = damaged(r, err, "it does not end where it should");
    return code;
}

static enum errc begin(struct reader *r, struct error *err)
{
    enum errc code = r->disk->open(r->disk, r->path, DISK_READ, &r->file, err);
    if (code == ERR_OK)
        r->piece = xmalloc(PIECE);
    return code == ERR_OK ? r->disk->size(r->disk, r->file, &r->size, err) : code;
}

static void end(struct reader *r)
{
    if (r->file)
        r->disk->close(r->disk, r->file);
    buf_free(&r->in);
    free(r->piece);
}

enum errc snapfile_read(struct disk *disk, const char *path,
                        enum errc (*each)(void *ctx, const struct record *record,
                                          struct error *err),
                        void *ctx, struct snapfile_info *ret_info, struct error *err)
{
    struct reader r = {.disk = disk, .path = path, .each = each, .ctx = ctx};
    enum errc code = begin(&r, err);
    if (code == ERR_OK)
        code = check_kind(&r, err);
    if (code == ERR_OK)
        code = check_whole(&r, err);
    if (code == ERR_OK)
        code = walk(&r, err);
    r.info.bytes = r.size;
    if (code == ERR_OK)
        *ret_info = r.info;
    end(&r);
    return code;
}

enum errc snapfile_verify(struct disk *disk, const char *path, struct error *err)
{
    struct reader r = {.disk = disk, .path = path};
    enum errc code = begin(&r, err);
    if (code == ERR_OK)
        code = check_whole(&r, err);
    end(&r);
    return code;
}
