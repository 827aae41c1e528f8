/* LD_PRELOAD: fdatasync() and fsync() don't return while the file $HANGING_FILE exists (test_slow_disk.py). */
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#define LOOK_US 10000

static void hang(void)
{
    const char *file = getenv("HANGING_FILE");
    while (file && access(file, F_OK) == 0)
        usleep(LOOK_US);
}

static int sync_by(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    hang();
    return real(fd);
}

int fdatasync(int fd)
{
    return sync_by("fdatasync", fd);
}

int fsync(int fd)
{
    return sync_by("fsync", fd);
}
