/* A server of our own on a folder, in a thread: `quorumfs ./data MOUNTPOINT`. */
#ifndef FUSE_EMBEDDED_H
#define FUSE_EMBEDDED_H

#include "fuse/options.h"

struct server_thread;

/* Starts it and puts its socket's URL into the endpoints of `o`. Errors name the folder or the address. */
enum errc embedded_start(struct options *o, struct server_thread **ret_thread, struct error *err);
/* Whether it has ended by itself, with the reason. */
bool embedded_failed(struct server_thread *thread, struct error *ret_why);
void embedded_stop(struct server_thread *thread);

#endif
