#include "fuse/daemonize.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <unistd.h>

int daemonize(void)
{
    int fds[2];
    char word;
    if (pipe2(fds, O_CLOEXEC) != 0) {
        perror("quorumfs: pipe");
        exit(1);
    }
    pid_t child = fork();
    if (child < 0) {
        perror("quorumfs: fork");
        exit(1);
    }
    if (child > 0) {
        ssize_t n;
        close(fds[1]);
        while ((n = read(fds[0], &word, 1)) < 0 && errno == EINTR)
            continue;
        _exit(n == 1 ? 0 : 1);
    }
    close(fds[0]);
    setsid();
    return fds[1];
}

void daemonize_ready(int fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    openlog("quorumfs", LOG_PID, LOG_DAEMON);
    for (int i = 0; null >= 0 && i < 3; i++)
        dup2(null, i);
    if (null > 2)
        close(null);
    if (chdir("/") != 0 || write(fd, "1", 1) != 1)
        syslog(LOG_WARNING, "the process that started the mount is gone");
    close(fd);
}

void daemonize_syslog(void *ctx, const char *line)
{
    (void)ctx;
    syslog(LOG_NOTICE, "%s", line);
}
