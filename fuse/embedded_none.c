#include "fuse/embedded.h"

/* A build without the server. */

enum errc embedded_start(struct options *o, struct server_thread **ret_thread, struct error *err)
{
    (void)ret_thread;
    return error_set(err, ERR_UNIMPLEMENTED, "%s: this build has no server of its own", o->source);
}

bool embedded_failed(struct server_thread *thread, struct error *ret_why)
{
    (void)thread;
    (void)ret_why;
    return false;
}

void embedded_stop(struct server_thread *thread)
{
    (void)thread;
}
