/* libfuse's operations, each a call of the core and its answer. For session.c. */
#ifndef FUSE_SESSION_OPS_H
#define FUSE_SESSION_OPS_H

#include "fuse/core.h"

/* linux/fuse.h has FUSE_DIRECT_IO_ALLOW_MMAP since 6.6; older headers build too. */
#define FUSE_DIRECT_IO_ALLOW_MMAP_BIT (1ull << 36)

struct session;
struct fuse_lowlevel_ops;

struct session_ctx {
    struct session *session;
    struct core *core;
    int32_t (*replay_tid)(void *ctx);
    void *ctx;
};

extern const struct fuse_lowlevel_ops session_operations;

#endif
