/* Metadata that a key can't hold: mode, owner, times set by hand, the type of a symbolic link, user xattrs.
 *
 * It is the value of a hidden key beside the file's, so that it moves with its directory and is the same in
 * a mount of any prefix: for the key `a/b` it is `a/.quorumfs/meta/b`, for the directory `a/` it is
 * `a/.quorumfs/meta/`. It changes in the same transaction as the file; a file whose metadata is the default
 * has no such key. Metadata is in force only if it is not older than the file's creation (a key that was
 * deleted and made again elsewhere starts anew), its times only if not older than the file's last change.
 *
 * The value is text, a line for each thing that differs from the default:
 *     type=symlink
 *     mode=0640
 *     uid=12
 *     gid=34
 *     mtime=981173106.000000000
 *     xattr=HEX OF NAME:HEX OF VALUE
 * Lines that are not understood are left out; they never make a file unreadable. */
#ifndef FUSE_META_H
#define FUSE_META_H

#include "lib/base/bytes.h"

#define META_FOLDER ".quorumfs/meta/"
#define META_XATTRS_MAX 32 /* of one file */
#define META_XATTR_SIZE_MAX 65536

struct meta_xattr {
    char *name;
    struct buf value;
};

struct meta {
    bool symlink, has_mode, has_uid, has_gid, has_mtime;
    uint32_t mode; /* permission bits with set-id and sticky, no type */
    uint32_t uid, gid;
    uint64_t mtime_ns;
    struct meta_xattr *xattrs;
    size_t xattr_count;
};

void meta_parse(struct bytes text, struct meta *ret_meta); /* ret_meta is freed with meta_free() */
void meta_print(const struct meta *m, struct buf *out);
bool meta_is_default(const struct meta *m);
void meta_copy(const struct meta *from, struct meta *to); /* `to` is overwritten, not freed */
void meta_free(struct meta *m);                           /* and makes it the default */

const struct meta_xattr *meta_xattr_find(const struct meta *m, const char *name);
/* Sets or, with value NULL, removes. False: too many, or too large. */
bool meta_xattr_set(struct meta *m, const char *name, const struct bytes *value);

/* The metadata key of a key (a directory's ends with '/'). */
void meta_key(struct bytes key, struct buf *out);
/* Whether `key` is a metadata key; appends the key that it belongs to. */
bool meta_key_owner(struct bytes key, struct buf *owner);
/* Whether a component of the key is the reserved one, so that no path shows it. */
bool meta_key_reserved(struct bytes key);

#endif
