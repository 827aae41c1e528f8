/* quorumfs.Info: how a client finds out that it talks to a quorumd, whose extensions (request names, linearizable
 * progress) an etcd ignores without a word. An etcd answers UNIMPLEMENTED. The answer's bytes are the release;
 * clients look only at the status. */
#include "daemon/api/call.h"

static void version_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    (void)message;
    rpc_call_reply(call, bytes_str(QUORUMFS_VERSION));
}

const struct rpc_method info_methods[] = {
    {.path = "/quorumfs.Info/Version", .message = version_message},
};
const size_t info_method_count = ARRAY_LEN(info_methods);
