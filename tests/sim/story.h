/* The story of a broken promise: of all lines of the trace (trace.h) those that concern its subject, in their order, few
 * enough to be read.
 *
 * The subject is what the check names (ABOUT), and what the trace ties to that: the entry of a request, the revision that
 * it made, the members that have it. The story begins where that came up first. It has the client's request and
 * answer, the messages that carry or acknowledge the entry (the first of each kind between two members), what the members
 * wrote and synced until it was on their disks, their deaths and starts, partitions and elections, and other lines
 * about the same term, watch, lease or key. If that is more than STORY_LINES, the least telling are left out, and the
 * larger gaps say so. Without a subject: the last lines. */
#ifndef SIM_STORY_H
#define SIM_STORY_H

#include <stdio.h>

#include "tests/sim/trace.h"

#define STORY_LINES 50

struct about { /* 0: not about one, or not known */
    uint64_t member, other, index, term, revision, lease, watch, client, value;
    uint32_t key_from, key_end; /* keys in between */
};
#define ABOUT(...)                                                                                 \
    &(const struct about)                                                                          \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define ABOUT_KEY(k) .key_from = (k), .key_end = (k) + 1

/* about: NULL: no subject. */
void story_print(const struct trace *t, const struct about *about, FILE *out);
/* One line with its time. */
void story_print_line(const struct trace *t, const struct trace_line *l, FILE *out);

#endif
