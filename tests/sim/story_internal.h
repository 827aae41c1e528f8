/* The story's state, for its two sources: story_subject.c says what is concerned, story.c what is told. */
#ifndef SIM_STORY_INTERNAL_H
#define SIM_STORY_INTERNAL_H

#include "tests/sim/story.h"

#define SECOND_NS 1000000000ull
#define NAMES_MAX 8 /* entries, revisions, requests of one subject */
#define MEMBERS_MAX 64
#define PAIRS_MAX 512

struct names {
    uint64_t all[NAMES_MAX];
    size_t count;
};

struct pick {
    const struct trace_line *line;
    int worth;
    size_t times; /* the same again, one after the other */
};

struct story {
    const struct trace *trace;
    struct about about;
    bool has_subject;
    const struct trace_line **lines;
    size_t count;
    bool *before; /* by line: it is of before the story's begin, and says how things stood then */
    struct names indices, revisions, values;
    uint64_t members; /* concerned, as bits */
    uint64_t from, to;
    /* While the lines are gone through. */
    bool writing[MEMBERS_MAX]; /* it has the entry, and not yet on its disk */
    struct {
        const char *format;
        uint64_t a, b, index;
    } pairs[PAIRS_MAX]; /* what each member told each other last about the entry */
    size_t pair_count;
    struct pick *picks;
    size_t pick_count;
};

/* What one line is about, seen from the subject. */
struct look {
    enum trace_field fields[TRACE_ARGS];
    size_t count;
    bool specific, term, key, thing, client; /* thing: the watch or the lease */
    bool other_thing;                        /* another one */
    bool up_to;                              /* acknowledges the entry, and others */
    uint64_t up_to_index, members, first_member, second_member;
};

bool story_has_between(const struct names *n, uint64_t low, uint64_t high);
struct look story_look(const struct story *s, const struct trace_line *l);

/* From `about` and the lines: the names that belong to the subject, the members concerned, and when it begins. */
void story_find_subject(struct story *s);

#endif
