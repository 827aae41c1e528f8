/* Is a history of operations linearizable?
 *
 * The search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with Lowe's memoization
 * ("Testing for linearizability", 2017): pick, among the operations whose call precedes every pending return, one
 * that the model accepts; remember each pair (set of linearized operations, state) that led nowhere.
 *
 * The object is described by a model over a small state of fixed size. Independent objects (keys) are checked
 * one by one: linearizability is compositional.
 *
 * Operations of unknown outcome double the number of orders each. A hint helps: whoever knows in which order they
 * probably took effect (etcd's revisions) says so, and that order is tried first. A wrong hint costs time only:
 * every other order is still tried before a history is called bad. */
#ifndef SIM_LINEAR_H
#define SIM_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINEAR_STATE_MAX 64
#define LINEAR_PENDING UINT64_MAX /* `returned` of an operation whose outcome nobody knows */
#define LINEAR_LAST UINT64_MAX    /* `hint` of an operation that probably never took effect */

struct linear_op {
    uint64_t
        called; /* any clock that orders all calls and returns of the history; ties are concurrent */
    uint64_t
        returned;   /* LINEAR_PENDING: may have taken effect at any time after the call, or never */
    const void *op; /* the model's own */
    /* The order to try first: low ones before high ones, equal ones in the order of their calls. Without one (0) an
     * operation of unknown outcome comes last. */
    uint64_t hint;
};

struct linear_model {
    size_t state_size; /* at most LINEAR_STATE_MAX; compared as bytes: no padding */
    void (*init)(void *state);
    /* Whether `op`, with the outcome that it recorded (any, if pending), can happen in `state`; if so `state`
     * becomes the one after it. */
    bool (*step)(void *state, const struct linear_op *op);
};

enum linear_verdict {
    LINEAR_YES,
    LINEAR_NO,
    LINEAR_GAVE_UP, /* more than `steps_max` steps: not decided */
};

/* ret_stuck: NULL, or gets the index of the first operation that no order reached, for the story. */
enum linear_verdict linear_check(const struct linear_model *model, const struct linear_op *ops,
                                 size_t count, uint64_t steps_max, size_t *ret_stuck);

#endif
