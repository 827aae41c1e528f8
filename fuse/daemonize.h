/* Going to the background only when the mount serves: the parent process waits and reports. */
#ifndef FUSE_DAEMONIZE_H
#define FUSE_DAEMONIZE_H

/* Returns in the child, with the descriptor for daemonize_ready(). The parent never returns: it ends with 0 when
 * the child is ready, and with 1 when the child ends before (which has said why on standard error). */
int daemonize(void);
/* Lets the parent end; the standard descriptors become /dev/null. */
void daemonize_ready(int fd);
/* For log_set_sink(): standard error is gone. */
void daemonize_syslog(void *ctx, const char *line);

#endif
