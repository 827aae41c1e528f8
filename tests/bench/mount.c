/* Times small file operations in a folder: the same program for the mount, the disk and passthrough.
 *
 *     mount FOLDER SECONDS
 *
 * Prints open+read+close, stat and save (open, truncate, write, close) of a 1 KiB file, a second each. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/env.h"
#include "lib/base/memory.h"

#define FILE_BYTES 1024

static bool save(const char *path)
{
    char content[FILE_BYTES];
    memset(content, 'x', sizeof(content));
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return false;
    bool ok = write(fd, content, sizeof(content)) == (ssize_t)sizeof(content);
    return close(fd) == 0 && ok;
}

static bool read_whole(const char *path)
{
    char content[2 * FILE_BYTES];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = read(fd, content, sizeof(content)) == FILE_BYTES;
    return close(fd) == 0 && ok;
}

static bool look(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static double rate(bool (*operation)(const char *path), const char *path, double seconds)
{
    struct env *env = env_system();
    uint64_t begun = env->mono_ns(env), now = begun, count = 0;
    while ((double)(now - begun) < seconds * 1e9) {
        if (!operation(path)) {
            perror(path);
            exit(1);
        }
        count++;
        now = env->mono_ns(env);
    }
    return (double)count * 1e9 / (double)(now - begun);
}

int main(int argc, char **argv)
{
    double seconds = argc == 3 ? atof(argv[2]) : 0;
    if (seconds <= 0) {
        fprintf(stderr, "usage: mount FOLDER SECONDS\n");
        return 2;
    }
    char *path = xasprintf("%s/bench-file", argv[1]);
    if (!save(path)) {
        perror(path);
        return 1;
    }
    printf("read=%.0f stat=%.0f save=%.0f\n", rate(read_whole, path, seconds),
           rate(look, path, seconds), rate(save, path, seconds));
    unlink(path);
    free(path);
    return 0;
}
