/* The store of a mount, over the network: backend.h on lib/client.
 *
 * Threading: the loop thread of the client. */
#ifndef FUSE_BACKEND_CLIENT_H
#define FUSE_BACKEND_CLIENT_H

#include <uv.h>

#include "fuse/backend.h"

struct backend_client;

/* Endpoints as in lib/client. ERR_INVALID: one that can't be read. Doesn't connect yet. */
enum errc backend_client_new(uv_loop_t *loop, const char *const *endpoints, size_t count,
                             uint64_t timeout_ms, struct backend_client **ret_client,
                             struct error *err);
struct backend *backend_client_backend(struct backend_client *b);
/* The endpoint that serves us, or why none does. */
const char *backend_client_state(const struct backend_client *b);
/* Ends what is under way (with ERR_CLOSED, from inside); frees with the loop's next turns. */
void backend_client_free(struct backend_client *b);

#endif
