/* Threads beside the main one. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* Starts a thread that gets no signals, which are the main thread's, but for those that its own faults raise.
 * `name` has at most 15 bytes (pthread_setname_np(3)). An errno on failure. */
int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *arg), void *arg);

#endif
