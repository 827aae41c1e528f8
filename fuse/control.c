#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>

#include "fuse/state.h"

/* The control directory `.quorumfs`: what the mount and its cluster are doing, as files. A file's content is
 * made when it is opened. */

struct control_entry {
    const char *name;
    bool is_dir;
    /* Makes the content from the cluster's status; NULL for directories and unsaved files. */
    void (*print)(struct core *c, const struct store_status *s, struct buf *out);
};

static void print_status(struct core *c, const struct store_status *s, struct buf *out);
static void print_leader(struct core *c, const struct store_status *s, struct buf *out);
static void print_members(struct core *c, const struct store_status *s, struct buf *out);
static void print_revision(struct core *c, const struct store_status *s, struct buf *out);

static const struct control_entry top = {CODEC_RESERVED, true, NULL};
static const struct control_entry unsaved_dir = {"unsaved", true, NULL};
static const struct control_entry unsaved_file = {"", false, NULL};
static const struct control_entry files[] = {
    {"status", false, print_status},
    {"leader", false, print_leader},
    {"members", false, print_members},
    {"revision", false, print_revision},
};

/* ---- Contents --------------------------------------------------------------------------------------- */

static const char *member_name(const struct store_status *s, uint64_t id)
{
    for (size_t i = 0; i < s->member_count; i++)
        if (s->members[i].id == id)
            return s->members[i].name;
    return "";
}

static void print_leader(struct core *c, const struct store_status *s, struct buf *out)
{
    (void)c;
    if (s->leader_id)
        buf_printf(out, "%llx %s\n", (unsigned long long)s->leader_id,
                   member_name(s, s->leader_id));
    else
        buf_printf(out, "none\n");
}

static void print_members(struct core *c, const struct store_status *s, struct buf *out)
{
    (void)c;
    for (size_t i = 0; i < s->member_count; i++) {
        const struct store_member *m = &s->members[i];
        buf_printf(out, "%llx %s %s %s\n", (unsigned long long)m->id, m->name[0] ? m->name : "-",
                   m->client_url[0] ? m->client_url : "-",
                   m->id == s->leader_id ? "leader"
                   : m->learner          ? "learner"
                                         : "follower");
    }
}

static void print_revision(struct core *c, const struct store_status *s, struct buf *out)
{
    int64_t revision = s->revision > c->revision ? s->revision : c->revision;
    buf_printf(out, "%lld\n", (long long)revision);
}

static void print_status(struct core *c, const struct store_status *s, struct buf *out)
{
    size_t voters = 0;
    json_t *members = json_array();
    for (size_t i = 0; i < s->member_count; i++) {
        const struct store_member *m = &s->members[i];
        char id[17];
        snprintf(id, sizeof id, "%llx", (unsigned long long)m->id);
        voters += m->learner ? 0 : 1;
        json_array_append_new(members,
                              json_pack("{s:s, s:s, s:s, s:b}", "id", id, "name", m->name,
                                        "client_url", m->client_url, "learner", m->learner));
    }
    size_t quorum = voters / 2 + 1;
    char leader[17];
    snprintf(leader, sizeof leader, "%llx", (unsigned long long)s->leader_id);
    json_t *status = json_pack(
        "{s:s, s:s, s:b, s:i, s:i, s:i, s:s, s:I, s:I, s:I, s:I, s:b, s:i, s:b, s:o}", "endpoint",
        s->endpoint ? s->endpoint : "", "version", s->version ? s->version : "", "connected", c->up,
        "voters", (int)voters, "quorum", (int)(voters ? quorum : 0), "failures_tolerated",
        (int)(voters ? voters - quorum : 0), "leader", leader, "term", (json_int_t)s->term,
        "revision", (json_int_t)(s->revision > c->revision ? s->revision : c->revision),
        "mirror_revision", (json_int_t)c->revision, "db_size", (json_int_t)s->db_size, "no_space",
        s->no_space, "unsaved", (int)c->unsaved_count, "reachable", s->code == ERR_OK, "members",
        members);
    char *text = status ? json_dumps(status, JSON_INDENT(2)) : NULL;
    if (text)
        buf_printf(out, "%s\n", text);
    free(text);
    json_decref(status);
}

/* ---- Inodes ----------------------------------------------------------------------------------------- */

bool control_is(const struct inode *i)
{
    return i->control != NULL;
}

static struct inode *control_inode(struct core *c, uint64_t parent, const char *name,
                                   const struct control_entry *e)
{
    struct inode *i = inode_viewed(c, parent, name);
    if (i && i->control == e)
        return i;
    struct buf identity = {0};
    buf_printf(&identity, "control %llu/%s", (unsigned long long)parent, name);
    i = inode_new(c, e->is_dir, identity.p, identity.n);
    buf_free(&identity);
    i->control = e;
    if (e == &unsaved_file)
        i->control_name = xstrdup(name);
    return i;
}

void control_lookup(struct op *op, struct inode *dir, const char *name)
{
    struct core *c = op->c;
    const struct control_entry *found = NULL;
    if (!dir)
        found = &top;
    else if (dir->control == &top) {
        for (size_t k = 0; k < ARRAY_LEN(files); k++)
            if (strcmp(files[k].name, name) == 0)
                found = &files[k];
        if (strcmp(name, unsaved_dir.name) == 0)
            found = &unsaved_dir;
    } else if (dir->control == &unsaved_dir && unsaved_find(c, name))
        found = &unsaved_file;
    if (!found) {
        op_fail(op, ENOENT);
        return;
    }
    uint64_t parent = dir ? dir->ino : CORE_ROOT_INO;
    reply_entry(op, control_inode(c, parent, name, found), parent, name);
}

void control_stat(const struct core *c, const struct inode *i, struct stat *ret_st)
{
    struct stat st = {.st_ino = i->ino, .st_nlink = i->is_dir ? 2 : 1, .st_blksize = 4096};
    st.st_uid = c->options.uid;
    st.st_gid = c->options.gid;
    /* What could not be saved may be secret: only for the owner of the mount. */
    bool secret = i->control == &unsaved_dir || i->control == &unsaved_file;
    st.st_mode = i->is_dir ? S_IFDIR | (secret ? 0700 : 0555) : S_IFREG | (secret ? 0600 : 0444);
    uint64_t ns = c->started_ns;
    struct unsaved *u = i->control_name ? unsaved_find((struct core *)c, i->control_name) : NULL;
    if (u) {
        st.st_size = (off_t)u->value->n;
        ns = u->mtime_ns;
    }
    st.st_mtim.tv_sec = (time_t)(ns / 1000000000);
    st.st_mtim.tv_nsec = (long)(ns % 1000000000);
    st.st_atim = st.st_ctim = st.st_mtim;
    *ret_st = st;
}

void control_list(struct core *c, struct inode *dir, struct handle *h)
{
    if (dir->control == &top) {
        for (size_t k = 0; k < ARRAY_LEN(files); k++)
            dir_add_entry(h, files[k].name, false);
        dir_add_entry(h, unsaved_dir.name, true);
    } else
        for (struct list *it = c->unsaved.next; it != &c->unsaved; it = it->next)
            dir_add_entry(h, CONTAINER_OF(it, struct unsaved, link)->name, false);
}

int control_unlink(struct core *c, struct inode *dir, const char *name)
{
    struct unsaved *u = dir->control == &unsaved_dir ? unsaved_find(c, name) : NULL;
    if (!u)
        return EPERM;
    struct inode *i = inode_viewed(c, dir->ino, name);
    if (i)
        inode_view_clear(c, i);
    unsaved_drop(c, u);
    return 0;
}

/* ---- Open ------------------------------------------------------------------------------------------- */

static void status_known(void *ctx, const struct store_status *s)
{
    struct op *op = ctx;
    struct core *c = op->c;
    struct handle *h = op->h;
    struct buf text = {0};
    if (s->code != ERR_OK && h->inode->control->print != print_status) {
        struct inode *i = h->inode;
        handle_free(c, h);
        inode_release(c, i);
        op_fail(op, core_errno(s->code));
        return;
    }
    h->inode->control->print(c, s, &text);
    h->pin = value_new(buf_bytes(&text));
    buf_free(&text);
    op_reply(op, &(struct core_reply){.fh = (uintptr_t)h, .noflush = true});
}

static void control_synced(struct op *op)
{
    struct core *c = op->c;
    if (op->code != ERR_OK && op->h->inode->control->print == print_revision) {
        struct inode *i = op->h->inode;
        handle_free(c, op->h);
        inode_release(c, i);
        op_fail(op, core_errno(op->code));
        return;
    }
    c->backend->status(c->backend, c->options.timeout_ms, status_known, op);
}

void control_open(struct op *op, struct inode *i)
{
    struct core *c = op->c;
    if ((op->flags & O_ACCMODE) != O_RDONLY) {
        op_fail(op, EACCES);
        return;
    }
    struct handle *h = op->h = handle_new(c, i, O_RDONLY, &op->who);
    if (i->control->print) {
        op->run = control_synced;
        mirror_sync(op);
        return;
    }
    struct unsaved *u = i->control_name ? unsaved_find(c, i->control_name) : NULL;
    h->pin = u ? value_ref(u->value) : value_new(BYTES_EMPTY);
    op_reply(op, &(struct core_reply){.fh = (uintptr_t)h, .noflush = true});
}
