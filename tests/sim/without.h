/* The kinds of fault by their names. A seed may be run without some of them (`--without crash,loss`): they are
 * switched off after all was drawn, so that everything else is drawn as ever. */
#ifndef SIM_WITHOUT_H
#define SIM_WITHOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/faults.h"

size_t without_count(void); /* at most 64: a set of them is a uint64_t, bit by bit */
const char *without_name(size_t kind);

/* "crash,loss" -> set; false: there is no such kind. */
bool without_parse(const char *names, uint64_t *ret_set);
void without_print(uint64_t set, char *out, size_t size); /* the reverse */

uint64_t without_drawn(const struct faults *f); /* what is on */
void without_apply(struct faults *f, uint64_t set);

#endif
