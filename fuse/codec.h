/* Keys and paths: every key has exactly one path, every path at most one key.
 *
 * A key (without the mount's prefix) is split at '/'; each component becomes one name of the path.
 *
 * - A component that is a valid file name stands for itself: `nginx.conf`, `100%`, `a%20b`.
 * - The empty component is `%`: key `a//b` is the path `a/%/b`. (A key that ends with '/' and has an empty
 *   value is no file but the mark of an empty directory; the tree decides that.)
 * - A component that can't be a name (`.`, `..`, one with a NUL byte) is percent-encoded: `%2E`, `%2E%2E`,
 *   `a%00b`; in it `%` itself is `%25`.
 * - So that nothing else decodes to them, components that look like what these rules produce are encoded
 *   as well, and only they: `%`, `%self`, `%00` are shown as `%25`, `%25self`, `%2500`. All others with a
 *   percent sign stay as they are.
 * - A component whose name would pass 255 bytes is shown over several levels: directories named `%~` and 80
 *   bytes each, and last `%=` and the rest (percent-encoded). Other names that begin with `%~` or `%=` have
 *   no key.
 * - `%self` in a directory is the value of the key that has the directory's own name: with the keys `a` and
 *   `a/b`, `a` is a directory with the files `%self` and `b`.
 * - The component `.quorumfs` is reserved, in every directory: metadata (meta.h) and the control directory.
 *
 * Pure functions; nothing here keeps state. */
#ifndef FUSE_CODEC_H
#define FUSE_CODEC_H

#include "lib/base/bytes.h"

#define CODEC_NAME_MAX 255
#define CODEC_CHUNK 80 /* bytes of a long component in one level: 2 + 3 * 80 <= 255 */
#define CODEC_SELF "%self"
#define CODEC_EMPTY "%"
#define CODEC_RESERVED ".quorumfs"

enum codec_kind {
    CODEC_PLAIN,    /* the name is one whole component */
    CODEC_SELF_KEY, /* `%self` */
    CODEC_PART,     /* `%~`: a part of a long component, continued one level below */
    CODEC_LAST,     /* `%=`: the last part of one */
    CODEC_NONE,     /* no key can have this name */
};

/* Appends the name, or for a long component the names with '/' between them. */
void codec_encode(struct bytes component, struct buf *out);

/* What `name` stands for; appends the component or its part. Whether parts fit together is for
 * codec_path_to_key() to check. */
enum codec_kind codec_decode(struct bytes name, struct buf *out);

/* The path of a key below the prefix, without a leading slash. */
void codec_key_to_path(struct bytes key, struct buf *out);

/* The key of a path, the inverse. False: no key has this path; `out` is left with anything. `%self` as the
 * last name stands for the directory's own key. */
bool codec_path_to_key(struct bytes path, struct buf *out);

#endif
