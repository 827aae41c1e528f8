#include "lib/base/thread.h"

#include <assert.h>
#include <signal.h>
#include <string.h>

int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *arg), void *arg)
{
    assert(strlen(name) <= 15);
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGABRT);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(ret_thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        pthread_setname_np(*ret_thread, name);
    return rc;
}
