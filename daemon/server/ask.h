/* One call to a peer port, on a connection of its own: for a member that has no membership yet, and so no
 * peers (daemon/peer) to talk through. Loop thread. */
#ifndef SERVER_ASK_H
#define SERVER_ASK_H

#include "lib/rpc/rpc.h"
#include "proto/rpc.pb-c.h"

#define ASK_CONNECT_MS 1000

struct ask;

/* `done` exactly once, from the loop, with gRPC's status and text or the answer's bytes; the handle dies with
 * it. It is never inside a callback of the connection, so anything may be freed and started there. */
struct ask *ask_start(uv_loop_t *loop, const char *url, const char *path, struct bytes request,
                      uint64_t timeout_ms,
                      void (*done)(void *ctx, int status, const char *text, struct bytes answer),
                      void *ctx);
/* MemberList; as of a linearizable point, or as the one that is asked knows it. */
struct ask *ask_members(uv_loop_t *loop, const char *url, bool linearizable, uint64_t timeout_ms,
                        void (*done)(void *ctx, int status, const char *text, struct bytes answer),
                        void *ctx);
void ask_cancel(struct ask *a); /* `done` does not run any more */

/* NULL: not one, or without a header. */
Etcdserverpb__MemberListResponse *ask_member_list(int status, struct bytes answer);

#endif
