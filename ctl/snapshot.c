/* snapshot save, snapshot status: a copy of a member's store in a file (lib/snapfile/file.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/ctl.h"
#include "lib/base/disk.h"
#include "lib/base/memory.h"
#include "lib/snapfile/file.h"

#define IDLE_MS 60000 /* so long a server may be silent */

/* ---- save ---------------------------------------------------------------------------------------- */

struct save {
    struct ctl *ctl;
    struct disk *disk;
    struct disk_file *file;
    uint64_t bytes;
    struct client_stream *stream;
    bool done;
    enum errc code;
    struct error err;
};

static void stop(struct save *s, enum errc code)
{
    s->code = code;
    s->done = true;
}

static void on_part(void *ctx, struct bytes message)
{
    struct save *s = ctx;
    Etcdserverpb__SnapshotResponse *r =
        etcdserverpb__snapshot_response__unpack(NULL, message.n, message.p);
    enum errc code =
        r ? s->disk->write(s->disk, s->file, s->bytes, r->blob.data, r->blob.len, &s->err)
          : error_set(&s->err, ERR_INTERNAL, "the server's answer can't be read");
    if (r) {
        s->bytes += r->blob.len;
        etcdserverpb__snapshot_response__free_unpacked(r, NULL);
    }
    if (code == ERR_OK)
        return;
    client_stream_stop(s->stream);
    stop(s, code);
}

static void on_end(void *ctx, const struct client_result *result)
{
    struct save *s = ctx;
    if (result->code != ERR_OK)
        error_set(&s->err, result->code, "%s",
                  result->text && *result->text ? result->text : errc_text(result->code));
    stop(s, result->code);
}

static enum errc fetch(struct save *s, const char *part)
{
    Etcdserverpb__SnapshotRequest r = ETCDSERVERPB__SNAPSHOT_REQUEST__INIT;
    enum errc code = s->disk->open(s->disk, part, DISK_WRITE | DISK_CREATE, &s->file, &s->err);
    if (code != ERR_OK)
        return code;
    code = s->disk->truncate(s->disk, s->file, 0, &s->err);
    if (code == ERR_OK) {
        s->stream = client_stream_start(s->ctl->client, "/etcdserverpb.Maintenance/Snapshot",
                                        &r.base, IDLE_MS, on_part, on_end, s);
        ctl_wait(s->ctl, &s->done);
        code = s->code;
    }
    if (code == ERR_OK)
        code = s->disk->sync(s->disk, s->file, &s->err);
    s->disk->close(s->disk, s->file);
    return code;
}

static enum errc sync_folder_of(struct disk *disk, const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    char *dir =
        slash ? xasprintf("%.*s", slash == path ? 1 : (int)(slash - path), path) : xstrdup(".");
    enum errc code = disk->sync_dir(disk, dir, err);
    free(dir);
    return code;
}

static bool run_save(struct ctl *ctl)
{
    if (!ctl_arguments(ctl, 1, 1))
        return false;
    if (ctl->endpoint_count != 1) {
        ctl_usage(ctl, "a snapshot is of one member: name one endpoint, not %zu",
                  ctl->endpoint_count);
        return false;
    }
    struct save s = {.ctl = ctl, .disk = disk_posix()};
    const char *path = ctl->argv[0];
    char *part = xasprintf("%s.part", path);
    enum errc code = fetch(&s, part);
    if (code == ERR_OK)
        code = snapfile_verify(s.disk, part, &s.err);
    if (code == ERR_OK)
        code = s.disk->rename(s.disk, part, path, &s.err);
    if (code == ERR_OK)
        code = sync_folder_of(s.disk, path, &s.err);
    else
        s.disk->unlink(s.disk, part, NULL);
    free(part);
    if (code == ERR_OK)
        printf("Snapshot saved at %s\n", path);
    else
        fprintf(stderr, "Error: %s\n", s.err.message);
    ctl_finish(ctl, code == ERR_OK ? 0 : 1);
    return true;
}

/* ---- status -------------------------------------------------------------------------------------- */

static void print_table(const struct snapfile_info *i, uint64_t size)
{
    static const char *const headers[] = {"HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"};
    struct ctl_table t = {.headers = headers, .columns = ARRAY_LEN(headers)};
    ctl_table_add(&t, xasprintf("%x", i->crc));
    ctl_table_add(&t, xasprintf("%" PRId64, i->head.revision));
    ctl_table_add(&t, xasprintf("%" PRIu64, i->keys));
    ctl_table_add(&t, ctl_size_text(size));
    ctl_table_print(&t);
}

static void print_status(const struct ctl *ctl, const struct snapfile_info *i)
{
    uint64_t size = i->bytes - SHA256_BYTES;
    char *text = ctl_size_text(size);
    if (ctl->output == CTL_JSON)
        printf("{\"hash\":%u,\"revision\":%" PRId64 ",\"totalKey\":%" PRIu64
               ",\"totalSize\":%" PRIu64 "}\n",
               i->crc, i->head.revision, i->keys, size);
    else if (ctl->output == CTL_FIELDS)
        printf("\"Hash\" : %u\n\"Revision\" : %" PRId64 "\n\"Keys\" : %" PRIu64
               "\n\"Size\" : %" PRIu64 "\n",
               i->crc, i->head.revision, i->keys, size);
    else if (ctl->output == CTL_TABLE)
        print_table(i, size);
    else
        printf("%x, %" PRId64 ", %" PRIu64 ", %s\n", i->crc, i->head.revision, i->keys, text);
    free(text);
}

static bool run_status(struct ctl *ctl)
{
    if (!ctl_arguments(ctl, 1, 1))
        return false;
    struct snapfile_info info;
    struct error err;
    enum errc code = snapfile_read(disk_posix(), ctl->argv[0], NULL, NULL, &info, &err);
    if (code == ERR_OK)
        print_status(ctl, &info);
    else
        fprintf(stderr, "Error: %s\n", err.message);
    ctl_finish(ctl, code == ERR_OK ? 0 : 1);
    return true;
}

const struct ctl_command ctl_snapshot_commands[] = {
    {"snapshot save", "FILE", "copies the store of one member into a file", run_save},
    {"snapshot status", "FILE", "checks such a file: hash, revision, rows, size", run_status},
    {0},
};
