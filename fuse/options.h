/* The command line of quorumfs: `quorumfs SOURCE MOUNTPOINT [-f] [-d] [-o OPT,...]`, as sshfs and mount(8)
 * give it.
 *
 * SOURCE is HOST[:PORT][,HOST[:PORT]...]:PREFIX. The keys that are shown are those that begin with PREFIX and
 * a '/' (`host:/` shows the key `/a/b` as `a/b`, `host:/conf` shows `/conf/a` as `a`); with an empty PREFIX
 * (`host:`) all keys are shown, `/a/b` as `%/a/b` (codec.h). A SOURCE that begins with '/' or '.', or has no
 * colon, is a folder: quorumfs runs a server on it, and shows `/a/b` as `a/b`. */
#ifndef FUSE_OPTIONS_H
#define FUSE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/error.h"

#define OPTIONS_LIST_MAX 64

struct options_list {
    char *item[OPTIONS_LIST_MAX];
    size_t count;
};

struct options {
    bool help, version;
    char *source;
    char *mount_point; /* as given */
    bool foreground, debug, read_only, allow_other;
    bool embedded;
    char *data_dir; /* embedded */
    struct options_list endpoints;
    struct options_list listen; /* embedded: additional client URLs */
    char *prefix;
    uint64_t timeout_ms;
    bool cached, stale_allow;
    size_t cache_bytes;
    uint32_t uid, gid, file_mode, dir_mode;
    struct options_list local; /* patterns */
    uint64_t append_idle_ms;
};

extern const char options_usage[];

/* ERR_INVALID names the argument and what is expected. Frees nothing: the process lives by it. */
enum errc options_parse(int argc, char **argv, struct options *ret_options, struct error *err);

#endif
