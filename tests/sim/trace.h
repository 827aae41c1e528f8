/* What happened in a run, line by line, kept as numbers: text is made of it only when a run fails or is watched.
 *
 * A format says in words what happened, and what each number is, so that the lines that concern a member, an entry, a
 * key can be found (story.h):
 *
 *     %m member       %t term        %k key        %l lease       %f file (trace_file())
 *     %i index        %j with the %i before it: a range of indices
 *     %a index: it, and all before, are meant      %v value, which names one request
 *     %r revision     %s with the %r before it: a range of revisions
 *     %c client       %w watch       %e error      %d ns          %y yes or no
 *     %g members, as bits
 *     %u %x any other number; printf's %llu, %lld and %llx do as well
 *
 * The first character may say which sort of line it is (enum trace_sort); it isn't printed. Lines that a story can't do
 * without are kept in a ring of their own, so that the traffic doesn't wash them away. Memory is bounded by both rings. */
#ifndef SIM_TRACE_H
#define SIM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_ARGS 5
#define TRACE_RECENT 16384   /* lines */
#define TRACE_LANDMARKS 8192 /* lines */
#define TRACE_FILES 256      /* names */
#define TRACE_NAME_MAX 48
#define TRACE_TEXT_MAX 256

enum trace_sort {
    TRACE_PLAIN = 0,
    TRACE_FAULT = '!',   /* something goes wrong or is mended, a member dies or starts */
    TRACE_REIGN = '=',   /* who leads, who is a member */
    TRACE_LINK = '+',    /* ties an entry to its request, a request to its revision */
    TRACE_MESSAGE = '>', /* carries or acknowledges entries */
    TRACE_VOTE = '?',    /* asks for a vote, or answers */
    TRACE_DISK = '*',    /* a change of a member's disk */
    TRACE_ROUTINE = '.', /* nothing that a story is about */
};

enum trace_field {
    FIELD_OTHER,
    FIELD_MEMBER,
    FIELD_INDEX,
    FIELD_INDEX_END,
    FIELD_INDEX_UP_TO,
    FIELD_TERM,
    FIELD_KEY,
    FIELD_REVISION,
    FIELD_REVISION_END,
    FIELD_LEASE,
    FIELD_WATCH,
    FIELD_CLIENT,
    FIELD_VALUE,
    FIELD_FILE,
};

struct trace_line {
    uint64_t at, seq;
    const char *format; /* of static lifetime */
    uint64_t args[TRACE_ARGS];
};

struct trace {
    struct trace_line recent[TRACE_RECENT], landmarks[TRACE_LANDMARKS];
    uint64_t recent_count, landmark_count; /* ever */
    uint64_t seq;
    char files[TRACE_FILES][TRACE_NAME_MAX]; /* an open hash table; "": free */
    size_t file_count;
};

/* Returns the line, which is valid until the ring is once around. */
const struct trace_line *trace_add(struct trace *t, uint64_t at, const char *format,
                                   const uint64_t args[TRACE_ARGS]);
/* The number of a file by its path; 0: "a file", when there are too many. */
uint64_t trace_file(struct trace *t, const char *path);

enum trace_sort trace_sort_of(const struct trace_line *l);
/* The arguments of a line, by its format. Returns how many there are. */
size_t trace_fields(const struct trace_line *l, enum trace_field fields[TRACE_ARGS]);
/* In words, cut off if need be, without the time. */
void trace_text(const struct trace *t, const struct trace_line *l, char out[TRACE_TEXT_MAX]);

/* All lines that are kept, in their order. The caller frees the list. */
const struct trace_line **trace_lines(const struct trace *t, size_t *ret_count);

#endif
