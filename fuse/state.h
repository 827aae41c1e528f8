/* The state behind core.h, shared by the core's own files and nobody else.
 *
 * Truth and the kernel's view are apart. *Nodes* are the truth as the mirror knows it: a tree by path, made
 * of the keys (and of files that exist in this mount only). *Inodes* are what the kernel has been told of:
 * each is attached to one node, as its file or as its directory, or to none any more. An inode also
 * remembers under which name the kernel knows it (its *view*), which changes only when the kernel learns of
 * it: by a local operation or by a replay. */
#ifndef FUSE_STATE_H
#define FUSE_STATE_H

#include "fuse/codec.h"
#include "fuse/core.h"
#include "fuse/meta.h"
#include "fuse/txn.h"
#include "fuse/value.h"
#include "lib/base/list.h"
#include "lib/base/memory.h"

#define CORE_HASH_SIZE 4096       /* buckets at first; tables grow */
#define CORE_FH_REPLAY 1          /* the handle of a replayed open: no pointer has this value */
#define CORE_RETRIES_MAX 200      /* of one operation against writers that win each time */
#define CORE_FRESH_MS 1000        /* a sync point this young proves the quorum to a first write */
#define CORE_STATUS_FRESH_MS 2000 /* and a status this young that there is space */
#define CORE_MASK_MS 2000     /* how long a file renamed to a local name waits for its successor */
#define CORE_UNSAVED_MAX 1000 /* kept failed saves; the oldest goes first */
#define CORE_HELD_BATCHES_MAX                                                                      \
    10000 /* watch batches that wait for the answer of an own transaction */

/* ---- Hash table of intrusive links ------------------------------------------------------------------ */

struct hash_link {
    struct hash_link *next;
    uint64_t hash;
};

struct hash_table {
    struct hash_link **buckets;
    size_t size, count; /* size is a power of two */
};

uint64_t hash_bytes(uint64_t seed, const void *p, size_t n);
void hash_add(struct hash_table *t, struct hash_link *link, uint64_t hash);
void hash_remove(struct hash_table *t, struct hash_link *link);
/* The chain of the bucket; the caller compares hash and key. */
struct hash_link *hash_chain(const struct hash_table *t, uint64_t hash);
void hash_free(struct hash_table *t);

/* ---- Nodes ------------------------------------------------------------------------------------------ */

/* One key of the mirror. */
struct kv {
    int64_t create_revision, mod_revision, version, lease;
    uint64_t mtime_ns;
    size_t size;
    unsigned generation;
    struct cached_value cached;
};

/* A file that the cluster doesn't have: a dropping, or one that was created and is not saved yet. */
struct local_file {
    struct value *value;
    struct meta meta;
    uint64_t mtime_ns;
    bool pending; /* waits for the close of the handle that created it; else a dropping */
};

struct node_meta {
    struct meta m;
    int64_t mod_revision;
    unsigned generation;
};

enum node_state { NODE_NONE, NODE_FILE, NODE_DIR };

struct node {
    struct node *parent; /* NULL: the root */
    struct hash_link link;
    struct list siblings, children;
    size_t child_count;    /* all */
    size_t visible_count;  /* those with a state */
    enum node_state state; /* as last settled */
    struct kv *file;       /* the key of this path */
    struct kv *marker;     /* the key of this path and '/', with an empty value */
    struct node_meta *file_meta, *dir_meta;
    struct local_file *local;
    bool masked; /* the file was renamed to a local name; the cluster will hear of it (local.c) */
    uint64_t masked_until_ms;
    struct list masked_link;
    struct inode *file_inode, *dir_inode;
    uint64_t dir_mtime_ns;
    uint16_t name_n;
    char name[];
};

/* ---- Inodes ----------------------------------------------------------------------------------------- */

struct control_entry;

struct inode {
    uint64_t ino;
    struct hash_link link;
    uint64_t lookups;
    bool is_dir;
    bool is_link;      /* a symbolic link: the kernel takes no other type for the same number */
    struct node *node; /* NULL: gone, or a control inode */
    bool unlinked;     /* gone by this mount's doing: what is unsaved of it is dropped */
    struct buf
        gone_key;     /* gone by another's doing: the key that it had, for a save that truncated */
    struct stat last; /* attributes when it went */
    const struct control_entry *control;
    char *control_name; /* of an unsaved file */

    uint64_t view_parent; /* 0: the kernel knows no name of it */
    char *view_name;
    struct hash_link view_link;

    struct list handles;
    unsigned commits;    /* under way for handles that the kernel has released or is flushing */
    struct list waiters; /* operations that wait until there are none */
};

/* ---- Handles ---------------------------------------------------------------------------------------- */

struct dir_entry {
    char *name;
    bool is_dir;
};

struct handle {
    struct inode *inode;
    struct list link;
    int flags; /* open(2)'s */
    /* Reading. */
    struct value *pin; /* the version that reads go on with; NULL: none yet */
    int64_t pin_revision;
    /* Writing. */
    bool dirty;
    bool whole;  /* the buffer is the whole content, whatever the key holds: truncated or created */
    bool append; /* the buffer is what is to be appended, whatever the key holds */
    bool loaded; /* the buffer holds content (append: only what is appended) */
    bool checked; /* quorum and space were there at the first write */
    int refused; /* errno of a write that was not taken: the content is not what the writer meant */
    bool abandoned; /* its writer was killed by a signal */
    bool released;
    bool committing;
    struct buf data;
    struct buf reservation; /* key that reserves the name, until the first commit (reserve.c) */
    int64_t base_revision;  /* of the content that was changed, when not whole; 0: no key */
    struct meta *meta;      /* set by hand through the handle, to be saved with the content */
    int32_t opener, writer;
    bool shared; /* another process than the opener has flushed it */
    int pidfd;
    uint64_t written_ms;
    struct list waiters; /* operations that wait for the commit under way */
    /* Directories and control files. */
    struct dir_entry *entries;
    size_t entry_count;
    struct list append_link; /* of those whose appended bytes wait for idle time */
    bool was_read;
    bool rewound; /* entries were read once from the start: the next such read makes them anew */
};

/* ---- Operations that wait --------------------------------------------------------------------------- */

struct op {
    struct core *c;
    struct caller who;
    core_done done;
    void *ctx;
    void (*run)(struct op *op); /* goes on */
    struct list link;           /* of a list of waiters */
    enum errc code;             /* of what was waited for */
    uint64_t began_ms;          /* of the sync point */
    uint64_t held_mark;         /* runs when held batches up to this one are applied */
    int tries;
    /* Arguments. */
    uint64_t ino, ino2, offset;
    struct handle *h;
    char *name, *name2;
    unsigned flags;
    uint32_t mode;
    size_t size;
    struct stat st;
    struct buf data;
    /* Found on the way. */
    struct txn txn;
    struct value *value;
    int64_t value_revision;
    struct buf key; /* of a fetch */
    struct core_holders_answer holders;
    int pending; /* parallel parts that have not ended */
    void *extra; /* an operation's own */
};

/* ---- The core --------------------------------------------------------------------------------------- */

struct held_batch {
    struct list link;
    int64_t revision;
    struct store_event *events;
    size_t count;
    struct arena arena;
};

struct expected {
    struct list link;
    uint64_t token;
    enum core_change_kind kind;
    bool is_dir;
    uint64_t parent, parent2;
    char *name, *name2;
};

struct unsaved {
    struct list link;
    char *name;
    struct value *value;
    uint64_t mtime_ns;
    uint64_t number;
};

struct core {
    struct core_options options;
    struct core_host host;
    struct backend *backend;
    struct buf prefix, prefix_end;
    uint64_t identity_hash;
    uint64_t started_ns;

    struct node *root;
    struct hash_table nodes;
    struct value_cache cache;
    struct hash_table inodes, views;

    /* Mirror. */
    int64_t revision; /* everything up to it has been applied */
    bool up;          /* the watch is connected */
    bool loading, loaded;
    struct list inflight; /* own transactions without an answer (struct txn_flight) */
    struct list held;
    uint64_t held_in, held_out; /* batches ever held, ever applied */
    struct list held_waiters;
    struct list tombstones;    /* own deletions that the watch has not reached */
    struct list own_revisions; /* own transactions that the watch has not reached */
    struct list load_waiters;
    unsigned generation; /* of the load under way: what it did not meet is gone */
    bool remote;   /* what is being applied was done elsewhere: local watchers are to hear of it */
    bool suppress; /* part of a rename that is replayed as one */
    uint64_t stamp_ns; /* of the change being applied */
    struct load *load;

    /* Replays that are on their way, oldest first. */
    struct list expecting;
    uint64_t token;

    bool sync_failed,
        probing; /* the last sync point did; one for no call is under way (mirror_sync.c) */
    uint64_t sync_failed_ms;
    uint64_t synced_ms, status_ms; /* begin of the last good sync point, time of the last status */
    bool no_space;
    int64_t db_size, db_quota;
    struct list masked;
    struct list lease_waiters;
    int64_t lease_id; /* of this mount; 0: none */
    bool lease_asked;
    struct list appending;
    struct list unsaved;
    size_t unsaved_count;
    uint64_t unsaved_number;
    size_t waiting;
    unsigned stopping; /* commits that the end waits for */
    void (*stopped)(void *ctx);
    void *stopped_ctx;
};

/* ---- tree.c ----------------------------------------------------------------------------------------- */

struct node *node_child(struct core *c, struct node *parent, struct bytes name);
struct node *node_child_make(struct core *c, struct node *parent, struct bytes name);
/* The node of a path ("" is the root); NULL unless make. */
struct node *node_at(struct core *c, struct bytes path, bool make);
/* The key's entry that readers of the node see; NULL: its local file, or nothing. */
struct kv *node_kv(const struct node *n);
/* Whether there is a file under the node's path or, in a directory, as `%self`. */
bool node_has_file(const struct node *n);
/* Takes notice of what changed at the node: its state, its parents', inodes, events; frees it and its
 * parents when nothing is left of them. n may be gone afterwards. */
void node_settle(struct core *c, struct node *n);
/* Moves a node with all below it to another place, which must be free of keys. */
void node_move(struct core *c, struct node *n, struct node *new_parent, struct bytes new_name);
bool node_is_part(const struct node *n); /* one level of a long component */
/* The key below the prefix; as_dir: with the '/' of a directory ("" for the root). */
void node_key(const struct node *n, bool as_dir, struct buf *out);
void node_full_key(const struct core *c, const struct node *n, bool as_dir, struct buf *out);
/* The path of the file or the directory that the node is. */
void node_path(const struct node *n, bool as_dir, struct buf *out);
/* The keys of a node and of everything below it, metadata with them. */
struct key_list {
    struct key_entry {
        struct bytes key; /* below the prefix; owned */
        int64_t mod_revision;
        unsigned generation;
    } * keys;
    size_t count;
};
void tree_keys(const struct node *n, struct key_list *list);
void key_list_free(struct key_list *list);
void tree_free(struct core *c);
struct kv *mirror_kv_new(void);
void mirror_kv_free(struct core *c, struct kv *kv);
void local_file_free(struct local_file *l);

/* ---- inode.c ---------------------------------------------------------------------------------------- */

struct inode *inode_find(struct core *c, uint64_t ino);
/* The inode of a node's file or directory, made if the kernel knew none. */
struct inode *inode_of(struct core *c, struct node *n, bool is_dir);
struct inode *inode_new(struct core *c, bool is_dir, const void *identity, size_t n);
void inode_attach(struct core *c, struct inode *i, struct node *n);
/* The node is no longer what the inode stands for. */
void inode_detach(struct core *c, struct inode *i, bool unlinked);
void inode_view_set(struct core *c, struct inode *i, uint64_t parent, const char *name);
void inode_view_clear(struct core *c, struct inode *i);
struct inode *inode_viewed(struct core *c, uint64_t parent, const char *name);
void inode_release(struct core *c, struct inode *i); /* frees it if nothing refers to it */
bool inode_known(const struct inode *i);             /* the kernel has it */
void inode_stat(struct core *c, const struct inode *i, struct stat *ret_st);
/* Metadata that is in force for the node (never NULL). */
const struct meta *node_meta_file(const struct node *n);
const struct meta *node_meta_dir(const struct node *n);
void node_meta_copy(const struct node *n, bool is_dir,
                    struct meta *ret_meta); /* without times that are over */
uint64_t inode_number(struct core *c, const void *identity, size_t n);

/* ---- mirror.c --------------------------------------------------------------------------------------- */

void mirror_start(struct core *c, void (*done)(void *ctx, enum errc code, const char *text),
                  void *ctx);
extern const struct store_watch_handler mirror_watch;
struct bytes below_prefix(const struct core *c, struct bytes key);
void mirror_tick(struct core *c); /* begins a lost load again */
void mirror_free(struct core *c);
/* One change of a key below the prefix. kv NULL: deleted at `revision`. value: its content if somebody has
 * it already (borrowed), else NULL: kv->value is copied. */
void mirror_apply(struct core *c, struct bytes key, const struct store_kv *kv, struct value *value,
                  int64_t revision);
/* What an own transaction has changed, as its answer says. */
void mirror_apply_txn(struct core *c, const struct txn *t, const struct store_txn_result *r);
/* Events of the key that are older than an own deletion at `revision` won't bring it back. */
void mirror_bury(struct core *c, struct bytes key, int64_t revision);
/* Sends; op->code and `then(op, result)` when answered. While it is under way, watch batches that touch its
 * keys are held back, so that what is our own is known as such. */
void mirror_txn(struct op *op, void (*then)(struct op *op, const struct store_txn_result *r));
/* Goes on with op->run once everything committed before this call is in the mirror; at once if the
 * options ask for none. op->code: ERR_OK, or why there is no certainty. */
void mirror_sync(struct op *op);
/* Fetches the content of the node's file into op->value and op->value_revision and goes on with op->run. */
void mirror_value(struct op *op, struct node *n);
uint64_t core_now_ms(const struct core *c);
uint64_t core_wall_ns(const struct core *c);

/* ---- op.c ------------------------------------------------------------------------------------------- */

struct op *op_new(struct core *c, const struct caller *who, core_done done, void *ctx,
                  void (*run)(struct op *op));
void op_reply(struct op *op, const struct core_reply *reply); /* and frees */
void op_fail(struct op *op, int error);
void op_ok(struct op *op);
void op_free(struct op *op); /* without an answer */
void core_fail(core_done done, void *ctx, int error);
int core_errno(enum errc code); /* what a failed read or transaction is to the caller */
/* Waits until no commit of the inode is under way; true: op->run will be called later. */
bool op_waits_for_inode(struct op *op, struct inode *i);
void inode_commit_begin(struct inode *i);
void inode_commit_end(struct core *c, struct inode *i);
/* The directory node of an inode, or NULL with *ret_error. */
struct node *dir_node(struct core *c, uint64_t ino, int *ret_error);
/* What a name in a directory is: the node and whether its file or its directory. */
struct place {
    struct node *dir;  /* where the name stands */
    struct node *node; /* NULL: nothing has this name */
    bool is_dir;       /* meaningful if node */
    bool self;         /* the name is `%self` */
};
void place_find(struct core *c, struct node *dir, const char *name, struct place *ret_place);
/* 0, or why a file or directory of this name can't be made here. */
int place_name_error(struct core *c, struct node *dir, const char *name, bool is_dir);
struct inode *place_inode(struct core *c, const struct place *p);
/* The node of a name that is to be made. */
struct node *place_make(struct core *c, const struct place *p, const char *name);
void forget_name(struct core *c, struct inode *i); /* op_remove.c */
void txn_delete_meta(struct core *c, struct txn *t, struct bytes key);
void txn_if_empty_dir(struct txn *t, struct bytes dir_key);
void attr_save(struct op *op, struct inode *i, const struct meta *m); /* op_attr.c */
void reply_attr(struct op *op, struct inode *i);
void reply_entry(struct op *op, struct inode *i, uint64_t parent, const char *name);
/* The default metadata, less what the caller gave. */
void meta_for_new(struct core *c, const struct caller *who, uint32_t mode, bool is_dir,
                  struct meta *ret_meta);
/* Adds what keeps a directory in being when the last thing in it goes. */
void txn_keep_parent(struct core *c, struct txn *t, struct node *leaving);
void txn_put_meta(struct core *c, struct txn *t, struct bytes key, const struct meta *m,
                  bool was_there);

/* ---- op_create.c ------------------------------------------------------------------------------------ */

/* The place of a name that is to be made; false: the answer is given. */
bool create_place(struct op *op, struct place *p);
/* The keys, with the prefix, that the name has as a file and as a directory. */
void create_keys(struct core *c, const struct place *p, const char *name, struct buf *ret_file,
                 struct buf *ret_dir);
void txn_if_free(struct txn *t, struct bytes file_key, struct bytes dir_key);
void create_reserved(struct op *op);

/* ---- reserve.c -------------------------------------------------------------------------------------- */

void reserve_name(struct op *op);
/* The name is free for others again, if the handle has reserved it. */
void reserve_drop(struct core *c, struct handle *h);
void reserve_drop_all(struct core *c, struct inode *i);

/* ---- save.c ----------------------------------------------------------------------------------------- */

/* Commits what the handle holds, then calls `then` with 0 or an errno. keep: a failure keeps the handle dirty
 * (fsync) instead of giving its bytes to unsaved/. */
void save_commit(struct core *c, struct handle *h, bool keep, void (*then)(void *ctx, int error),
                 void *ctx);
void save_release(struct core *c, struct handle *h);
void save_tick(struct core *c);

/* ---- handle.c --------------------------------------------------------------------------------------- */

struct handle *handle_new(struct core *c, struct inode *i, int flags, const struct caller *who);
struct handle *handle_of(uint64_t fh);
void handle_truncate_all(struct handle *h); /* op_read.c */
void handle_resize_run(struct op *op);      /* op_write.c */
/* Metadata to be saved with the content of the handle. */
struct meta *handle_meta(struct handle *h);
void handle_free(struct core *c, struct handle *h);
bool handle_writes(const struct handle *h);
/* The handle whose unsaved content the caller should see, NULL if none. */
struct handle *handle_dirty_of(const struct inode *i, const struct caller *who);

void dir_add_entry(struct handle *h, const char *name, bool is_dir); /* op_dir.c */

/* ---- local.c ---------------------------------------------------------------------------------------- */

bool local_name(const struct core *c, const char *name);
struct local_file *local_make(struct core *c, struct node *n, bool pending);
void local_tick(struct core *c);
void local_mask(struct core *c, struct node *n);
void local_unmask(struct core *c, struct node *n);
void local_shutdown(struct core *c);

/* ---- events.c --------------------------------------------------------------------------------------- */

/* The node's state went from `before` to what it is; the node's file may have come or gone as `%self`. */
void events_state(struct core *c, struct node *n, enum node_state before);
void events_content(struct core *c, struct node *n);
void events_attrib(struct core *c, struct node *n, bool is_dir);
/* Looks whether a batch is one rename; then prepares to replay it as such. */
struct remote_rename {
    bool found;
    struct buf from, to; /* paths */
    bool is_dir;
};
void events_find_rename(struct core *c, const struct store_event *events, size_t count,
                        struct remote_rename *ret);
void events_renamed(struct core *c, struct remote_rename *r);
const struct expected *events_expected(const struct core *c, uint64_t parent, const char *name);
void events_free(struct core *c);

/* ---- replayed.c: requests of the replay thread ------------------------------------------------------ */

void replayed_lookup(struct core *c, uint64_t parent, const char *name, core_done done, void *ctx);
void replayed_create(struct core *c, uint64_t parent, const char *name, bool is_dir, bool open,
                     core_done done, void *ctx);
void replayed_gone(struct core *c, uint64_t parent, const char *name, core_done done, void *ctx);
void replayed_rename(struct core *c, uint64_t parent, const char *name, uint64_t new_parent,
                     const char *new_name, core_done done, void *ctx);
void replayed_attr(struct core *c, uint64_t ino, core_done done, void *ctx);

/* ---- control.c -------------------------------------------------------------------------------------- */

bool control_is(const struct inode *i);
void control_lookup(struct op *op, struct inode *dir, const char *name); /* dir NULL: the root */
void control_stat(const struct core *c, const struct inode *i, struct stat *ret_st);
void control_open(struct op *op, struct inode *i);
void control_list(struct core *c, struct inode *dir, struct handle *h);
int control_unlink(struct core *c, struct inode *dir, const char *name);

/* ---- unsaved.c -------------------------------------------------------------------------------------- */

/* Keeps bytes that could not be saved, and logs that and why. */
void unsaved_keep(struct core *c, const char *path, struct bytes content, const char *why);
struct unsaved *unsaved_find(struct core *c, const char *name);
void unsaved_drop(struct core *c, struct unsaved *u);
void unsaved_free(struct core *c);

#endif
