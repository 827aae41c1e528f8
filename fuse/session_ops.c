#define FUSE_USE_VERSION 314
#include "fuse/session_ops.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>

#include "lib/base/memory.h"

/* Names stay valid in the kernel until a replay or a local operation changes them; attributes are asked for
 * each time, which is where an operation gets its sync point. */
#define ENTRY_TIMEOUT_S 3600.0
#define ATTR_TIMEOUT_S 0.0

static struct session_ctx *ctx_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static struct core *core_of(fuse_req_t req)
{
    return ctx_of(req)->core;
}

static struct caller caller_of(fuse_req_t req)
{
    const struct fuse_ctx *f = fuse_req_ctx(req);
    struct session_ctx *s = ctx_of(req);
    struct caller who = {.pid = f->pid, .uid = f->uid, .gid = f->gid};
    who.replay = f->pid > 0 && s->replay_tid && f->pid == s->replay_tid(s->ctx);
    return who;
}

/* ---- Answers ---------------------------------------------------------------------------------------- */

static void answer_error(void *ctx, const struct core_reply *r)
{
    fuse_reply_err(ctx, r->error);
}

static struct fuse_entry_param entry_of(const struct stat *st)
{
    return (struct fuse_entry_param){.ino = st->st_ino,
                                     .attr = *st,
                                     .attr_timeout = ATTR_TIMEOUT_S,
                                     .entry_timeout = ENTRY_TIMEOUT_S};
}

static void answer_entry(void *ctx, const struct core_reply *r)
{
    struct core *c = core_of(ctx);
    if (r->error) {
        fuse_reply_err(ctx, r->error);
        return;
    }
    struct fuse_entry_param e = entry_of(&r->st);
    if (fuse_reply_entry(ctx, &e) != 0)
        core_forget(c, e.ino, 1);
}

static void answer_attr(void *ctx, const struct core_reply *r)
{
    if (r->error)
        fuse_reply_err(ctx, r->error);
    else
        fuse_reply_attr(ctx, &r->st, ATTR_TIMEOUT_S);
}

static void answer_open(void *ctx, const struct core_reply *r)
{
    struct core *c = core_of(ctx);
    struct fuse_file_info fi = {.fh = r->fh, .direct_io = 1, .noflush = r->noflush};
    static const struct caller nobody;
    if (r->error)
        fuse_reply_err(ctx, r->error);
    else if (fuse_reply_open(ctx, &fi) != 0)
        core_release(c, &nobody, r->fh);
}

static void answer_opendir(void *ctx, const struct core_reply *r)
{
    struct core *c = core_of(ctx);
    struct fuse_file_info fi = {.fh = r->fh};
    if (r->error)
        fuse_reply_err(ctx, r->error);
    else if (fuse_reply_open(ctx, &fi) != 0)
        core_releasedir(c, r->fh);
}

static void answer_create(void *ctx, const struct core_reply *r)
{
    struct core *c = core_of(ctx);
    struct fuse_file_info fi = {.fh = r->fh, .direct_io = 1};
    static const struct caller nobody;
    if (r->error) {
        fuse_reply_err(ctx, r->error);
        return;
    }
    struct fuse_entry_param e = entry_of(&r->st);
    if (fuse_reply_create(ctx, &e, &fi) != 0) {
        core_release(c, &nobody, r->fh);
        core_forget(c, e.ino, 1);
    }
}

static void answer_data(void *ctx, const struct core_reply *r)
{
    if (r->error)
        fuse_reply_err(ctx, r->error);
    else
        fuse_reply_buf(ctx, (const char *)r->data.p, r->data.n);
}

static void answer_count(void *ctx, const struct core_reply *r)
{
    if (r->error)
        fuse_reply_err(ctx, r->error);
    else
        fuse_reply_write(ctx, r->count);
}

static void answer_lseek(void *ctx, const struct core_reply *r)
{
    if (r->error)
        fuse_reply_err(ctx, r->error);
    else
        fuse_reply_lseek(ctx, (off_t)r->count);
}

static void answer_link(void *ctx, const struct core_reply *r)
{
    if (r->error) {
        fuse_reply_err(ctx, r->error);
        return;
    }
    char *target = (char *)bytes_dup(r->data);
    fuse_reply_readlink(ctx, target);
    free(target);
}

/* ---- Names and attributes --------------------------------------------------------------------------- */

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    /* A pipe between the kernel and a buffer of ours costs more calls than it saves copying. */
    conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct caller who = caller_of(req);
    core_lookup(core_of(req), &who, parent, name, answer_entry, req);
}

static void on_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    core_forget(core_of(req), ino, count);
    fuse_reply_none(req);
}

static void on_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        core_forget(core_of(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    core_getattr(core_of(req), &who, ino, fi ? fi->fh : CORE_NO_HANDLE, answer_attr, req);
}

static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
                       struct fuse_file_info *fi)
{
    static const struct {
        int theirs;
        unsigned ours;
    } bits[] = {
        {FUSE_SET_ATTR_MODE, CORE_SET_MODE},   {FUSE_SET_ATTR_UID, CORE_SET_UID},
        {FUSE_SET_ATTR_GID, CORE_SET_GID},     {FUSE_SET_ATTR_SIZE, CORE_SET_SIZE},
        {FUSE_SET_ATTR_MTIME, CORE_SET_MTIME}, {FUSE_SET_ATTR_MTIME_NOW, CORE_SET_MTIME_NOW},
        {FUSE_SET_ATTR_ATIME, CORE_SET_ATIME}, {FUSE_SET_ATTR_ATIME_NOW, CORE_SET_ATIME_NOW}};
    struct caller who = caller_of(req);
    unsigned set = 0;
    for (size_t i = 0; i < ARRAY_LEN(bits); i++)
        if (to_set & bits[i].theirs)
            set |= bits[i].ours;
    core_setattr(core_of(req), &who, ino, fi ? fi->fh : CORE_NO_HANDLE, set, st, answer_attr, req);
}

static void on_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct caller who = caller_of(req);
    core_readlink(core_of(req), &who, ino, answer_link, req);
}

static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct caller who = caller_of(req);
    (void)rdev;
    core_mknod(core_of(req), &who, parent, name, mode, answer_entry, req);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct caller who = caller_of(req);
    core_mkdir(core_of(req), &who, parent, name, mode, answer_entry, req);
}

static void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct caller who = caller_of(req);
    core_symlink(core_of(req), &who, target, parent, name, answer_entry, req);
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct caller who = caller_of(req);
    core_unlink(core_of(req), &who, parent, name, answer_error, req);
}

static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct caller who = caller_of(req);
    core_rmdir(core_of(req), &who, parent, name, answer_error, req);
}

static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                      const char *new_name, unsigned flags)
{
    struct caller who = caller_of(req);
    core_rename(core_of(req), &who, parent, name, new_parent, new_name, flags, answer_error, req);
}

/* One key is one file: a second name for it can't be told apart from a copy. */
static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    (void)ino;
    (void)parent;
    (void)name;
    fuse_reply_err(req, EPERM);
}

/* ---- Files ------------------------------------------------------------------------------------------ */

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    core_open(core_of(req), &who, ino, fi->flags, answer_open, req);
}

static void on_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    core_create(core_of(req), &who, parent, name, mode, fi->flags, answer_create, req);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    (void)ino;
    core_read(core_of(req), &who, fi->fh, (uint64_t)offset, size, answer_data, req);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    (void)ino;
    core_write(core_of(req), &who, fi->fh, (uint64_t)offset, bytes_of(data, size), answer_count,
               req);
}

static void on_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    (void)ino;
    core_flush(core_of(req), &who, fi->fh, answer_error, req);
}

static void on_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    (void)ino;
    (void)data_only;
    core_fsync(core_of(req), &who, fi->fh, answer_error, req);
}

/* close(2) does not wait for the answer, so it is given at once; what is unsaved is saved after it. */
static void on_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    struct core *c = core_of(req);
    uint64_t fh = fi->fh;
    (void)ino;
    fuse_reply_err(req, 0);
    core_release(c, &who, fh);
}

static void on_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                         struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    (void)ino;
    core_fallocate(core_of(req), &who, fi->fh, mode, (uint64_t)offset, (uint64_t)length,
                   answer_error, req);
}

static void on_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
                     struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    (void)ino;
    core_lseek(core_of(req), &who, fi->fh, (uint64_t)offset, whence, answer_lseek, req);
}

/* ---- Directories ------------------------------------------------------------------------------------ */

struct listing {
    struct core_dir_sink sink;
    fuse_req_t req;
    char *p;
    size_t n, size;
};

static bool is_dots(const char *name)
{
    return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

static bool list_add(void *ctx, const char *name, const struct stat *st, uint64_t next_offset)
{
    struct listing *l = ctx;
    size_t left = l->size - l->n, needed;
    if (l->sink.plus) {
        struct fuse_entry_param e = entry_of(st);
        if (is_dots(name) || st->st_ino == UINT32_MAX)
            e.ino = 0; /* not looked up by being listed */
        needed = fuse_add_direntry_plus(l->req, l->p + l->n, left, name, &e, (off_t)next_offset);
    } else
        needed = fuse_add_direntry(l->req, l->p + l->n, left, name, st, (off_t)next_offset);
    if (needed > left)
        return false;
    l->n += needed;
    return true;
}

static void listed(void *ctx, const struct core_reply *r)
{
    struct listing *l = ctx;
    if (r->error)
        fuse_reply_err(l->req, r->error);
    else
        fuse_reply_buf(l->req, l->p, l->n);
    free(l->p);
    free(l);
}

static void list(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
    struct caller who = caller_of(req);
    struct listing *l = xcalloc(1, sizeof *l);
    l->sink = (struct core_dir_sink){.ctx = l, .add = list_add, .plus = plus};
    l->req = req;
    l->size = size;
    l->p = xmalloc(size);
    core_readdir(core_of(req), &who, fi->fh, (uint64_t)offset, &l->sink, listed, l);
}

static void on_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct caller who = caller_of(req);
    (void)fi;
    core_opendir(core_of(req), &who, ino, answer_opendir, req);
}

static void on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info *fi)
{
    (void)ino;
    list(req, size, offset, fi, false);
}

static void on_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                           struct fuse_file_info *fi)
{
    (void)ino;
    list(req, size, offset, fi, true);
}

static void on_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    core_releasedir(core_of(req), fi->fh);
    fuse_reply_err(req, 0);
}

/* A directory has nothing of its own to save: its entries are committed when they are made. */
static void on_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    (void)ino;
    (void)data_only;
    (void)fi;
    fuse_reply_err(req, 0);
}

static void on_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct statvfs st;
    (void)ino;
    core_statfs(core_of(req), &st);
    fuse_reply_statfs(req, &st);
}

/* ---- Extended attributes ---------------------------------------------------------------------------- */

/* The caller asks for the size first, or has too little room. */
struct sized {
    fuse_req_t req;
    size_t size;
};

static void answer_sized(void *ctx, const struct core_reply *r)
{
    struct sized *s = ctx;
    if (r->error)
        fuse_reply_err(s->req, r->error);
    else if (s->size == 0)
        fuse_reply_xattr(s->req, r->data.n);
    else if (s->size < r->data.n)
        fuse_reply_err(s->req, ERANGE);
    else
        fuse_reply_buf(s->req, (const char *)r->data.p, r->data.n);
    free(s);
}

static struct sized *sized_new(fuse_req_t req, size_t size)
{
    struct sized *s = xmalloc(sizeof *s);
    *s = (struct sized){req, size};
    return s;
}

static void on_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct caller who = caller_of(req);
    core_getxattr(core_of(req), &who, ino, name, answer_sized, sized_new(req, size));
}

static void on_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct caller who = caller_of(req);
    core_listxattr(core_of(req), &who, ino, answer_sized, sized_new(req, size));
}

static void on_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                        size_t size, int flags)
{
    struct caller who = caller_of(req);
    core_setxattr(core_of(req), &who, ino, name, bytes_of(value, size), flags, answer_error, req);
}

static void on_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct caller who = caller_of(req);
    core_removexattr(core_of(req), &who, ino, name, answer_error, req);
}

const struct fuse_lowlevel_ops session_operations = {
    .init = on_init,
    .lookup = on_lookup,
    .forget = on_forget,
    .forget_multi = on_forget_multi,
    .getattr = on_getattr,
    .setattr = on_setattr,
    .readlink = on_readlink,
    .mknod = on_mknod,
    .mkdir = on_mkdir,
    .symlink = on_symlink,
    .unlink = on_unlink,
    .rmdir = on_rmdir,
    .rename = on_rename,
    .link = on_link,
    .open = on_open,
    .create = on_create,
    .read = on_read,
    .write = on_write,
    .flush = on_flush,
    .fsync = on_fsync,
    .release = on_release,
    .fallocate = on_fallocate,
    .lseek = on_lseek,
    .opendir = on_opendir,
    .readdir = on_readdir,
    .readdirplus = on_readdirplus,
    .releasedir = on_releasedir,
    .fsyncdir = on_fsyncdir,
    .statfs = on_statfs,
    .getxattr = on_getxattr,
    .listxattr = on_listxattr,
    .setxattr = on_setxattr,
    .removexattr = on_removexattr,
};
