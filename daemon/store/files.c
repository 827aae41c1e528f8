#include "daemon/store/files.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/bytes.h"
#include "lib/base/crc32c.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

#define REWRITE_CHUNK (1024u * 1024)
#define MARKER "store.current"
#define MARKER_NEW "store.current.new"
#define MARKER_MAX 128

char *files_path(const char *dir, const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

/* store.db or store-N.db, with nothing behind it. */
static bool is_database(const char *name)
{
    if (strcmp(name, STORE_FILE_FIRST) == 0)
        return true;
    unsigned long n;
    char canonical[64];
    if (sscanf(name, "store-%lu.db", &n) != 1)
        return false;
    snprintf(canonical, sizeof(canonical), "store-%lu.db", n);
    return strcmp(name, canonical) == 0;
}

static unsigned long number_of(const char *name)
{
    unsigned long n;
    return sscanf(name, "store-%lu.db", &n) == 1 ? n : 0;
}

char *files_next_name(const char *current, unsigned nth)
{
    return xasprintf("store-%lu.db", number_of(current) + nth);
}

/* "store-3.db 1234abcd\n": the name and the CRC32C of it, so that a torn file is known. */
static char *marker_text(const char *name)
{
    return xasprintf("%s %08x\n", name, crc32c(0, name, strlen(name)));
}

static enum errc read_marker(struct disk *disk, const char *path, char *text, struct error *err)
{
    struct disk_file *f;
    enum errc code = disk->open(disk, path, DISK_READ, &f, err);
    if (code != ERR_OK)
        return code;
    size_t n = 0;
    code = disk->read(disk, f, 0, text, MARKER_MAX - 1, &n, err);
    disk->close(disk, f);
    text[code == ERR_OK ? n : 0] = 0;
    return code;
}

struct listing {
    const char *keep;   /* a database not to be listed, or NULL */
    const char *also;   /* another one */
    bool exists;        /* keep is there */
    unsigned long last; /* the highest number */
    size_t databases;   /* others */
    struct buf remove;  /* names of others and what belongs to them, each with its NUL */
};

/* SQLite's files beside a database are called as it is with a suffix. */
static void list_name(void *ctx, const char *name)
{
    struct listing *l = ctx;
    char base[128];
    snprintf(base, sizeof(base), "%s", name);
    char *suffix = strstr(base, ".db-");
    if (suffix)
        suffix[3] = 0;
    l->exists = l->exists || (l->keep && strcmp(name, l->keep) == 0);
    if (!is_database(base) || (l->keep && strcmp(base, l->keep) == 0) ||
        (l->also && strcmp(base, l->also) == 0))
        return;
    unsigned long n = number_of(base);
    l->last = n > l->last ? n : l->last;
    l->databases += !suffix;
    buf_append(&l->remove, name, strlen(name) + 1);
}

enum errc files_exists(struct disk *disk, const char *dir, const char *name, bool *ret_exists,
                       struct error *err)
{
    struct listing l = {.keep = name};
    enum errc code = disk->list(disk, dir, list_name, &l, err);
    buf_free(&l.remove);
    if (code == ERR_OK)
        *ret_exists = l.exists;
    return code;
}

static enum errc unmarked(struct disk *disk, const char *dir, char **ret_name, struct error *err)
{
    struct listing l = {.keep = STORE_FILE_FIRST};
    enum errc code = disk->list(disk, dir, list_name, &l, err);
    buf_free(&l.remove);
    if (code != ERR_OK)
        return code;
    if (!l.exists && l.databases > 0)
        return error_set(err, ERR_CORRUPT,
                         "%s/%s is missing, so it is not known which database counts; remove the "
                         "member's data directory and let it rejoin, or restore a snapshot",
                         dir, MARKER);
    *ret_name = xstrdup(STORE_FILE_FIRST);
    return ERR_OK;
}

enum errc files_current(struct disk *disk, const char *dir, char **ret_name, bool *ret_marked,
                        struct error *err)
{
    char text[MARKER_MAX], name[MARKER_MAX] = "";
    char *path = files_path(dir, MARKER);
    enum errc code = read_marker(disk, path, text, err);
    free(path);
    *ret_marked = code == ERR_OK;
    if (code == ERR_NOT_FOUND)
        return unmarked(disk, dir, ret_name, err);
    if (code != ERR_OK)
        return code;
    sscanf(text, "%127s", name);
    char *expected = marker_text(name);
    bool good = is_database(name) && strcmp(text, expected) == 0;
    free(expected);
    if (!good)
        return error_set(err, ERR_CORRUPT,
                         "%s/%s is damaged; remove the member's data directory and let it rejoin, "
                         "or restore a snapshot",
                         dir, MARKER);
    *ret_name = xstrdup(name);
    return ERR_OK;
}

enum errc files_announce(struct disk *disk, const char *dir, const char *name, struct error *err)
{
    char *new = files_path(dir, MARKER_NEW);
    char *text = marker_text(name);
    struct disk_file *f = NULL;
    enum errc code = disk->open(disk, new, DISK_WRITE | DISK_CREATE, &f, err);
    if (code == ERR_OK)
        code = disk->truncate(disk, f, 0, err);
    if (code == ERR_OK)
        code = disk->write(disk, f, 0, text, strlen(text), err);
    if (code == ERR_OK)
        code = disk->sync(disk, f, err);
    if (f)
        disk->close(disk, f);
    /* The database's own name must be durable before something durable points to it. */
    if (code == ERR_OK)
        code = disk->sync_dir(disk, dir, err);
    free(text);
    free(new);
    return code;
}

enum errc files_switch(struct disk *disk, const char *dir, struct error *err)
{
    char *path = files_path(dir, MARKER), *new = files_path(dir, MARKER_NEW);
    enum errc code = disk->rename(disk, new, path, err);
    if (code == ERR_OK && !MUTANT(snapshot_dir_not_synced)) /* e#22401 */
        code = disk->sync_dir(disk, dir, err);
    free(new);
    free(path);
    return code;
}

enum errc files_last_begun(struct disk *disk, const char *dir, const char *current, char **ret_name,
                           unsigned *ret_nth, struct error *err)
{
    struct listing l = {.keep = current};
    enum errc code = disk->list(disk, dir, list_name, &l, err);
    buf_free(&l.remove);
    if (code != ERR_OK)
        return code;
    unsigned long n = number_of(current);
    *ret_nth = l.last > n ? (unsigned)(l.last - n) : 0;
    *ret_name = *ret_nth ? files_next_name(current, *ret_nth) : NULL;
    return ERR_OK;
}

enum errc files_clean(struct disk *disk, const char *dir, const char *keep, const char *also,
                      struct error *err)
{
    struct listing l = {.keep = keep, .also = also};
    enum errc code = disk->list(disk, dir, list_name, &l, err);
    for (size_t i = 0; code == ERR_OK && i < l.remove.n;) {
        const char *name = (const char *)l.remove.p + i;
        char *path = files_path(dir, name);
        code = disk->unlink(disk, path, err);
        if (code == ERR_NOT_FOUND)
            code = ERR_OK; /* SQLite removed it meanwhile */
        free(path);
        i += strlen(name) + 1;
    }
    buf_free(&l.remove);
    return code;
}

static enum errc write_again(struct disk *disk, struct disk_file *f, struct error *err)
{
    uint64_t size = 0;
    uint8_t *chunk = xmalloc(REWRITE_CHUNK);
    enum errc code = disk->size(disk, f, &size, err);
    for (uint64_t at = 0; code == ERR_OK && at < size;) {
        size_t n = 0;
        code = disk->read(disk, f, at, chunk, REWRITE_CHUNK, &n, err);
        if (code == ERR_OK && n == 0)
            break; /* it ended meanwhile */
        if (code == ERR_OK)
            code = disk->write(disk, f, at, chunk, n, err);
        at += n;
    }
    free(chunk);
    return code == ERR_OK ? disk->sync(disk, f, err) : code;
}

enum errc files_write_again(struct disk *disk, const char *path, struct error *err)
{
    struct disk_file *f;
    enum errc code = disk->open(disk, path, DISK_WRITE, &f, err);
    if (code != ERR_OK)
        return code == ERR_NOT_FOUND ? ERR_OK : code;
    code = write_again(disk, f, err);
    disk->close(disk, f);
    return code;
}
