/* Alarms: one row for each member and type, key (type, member id), value (type, causes). */
#include <string.h>

#include "daemon/apply/internal.h"

static void row_key(const struct alarm_row *row, uint8_t key[9])
{
    key[0] = (uint8_t)row->type;
    put_be64(key + 1, row->member_id);
}

/* Where a row is or would be. */
static size_t place(const struct apply *a, const struct alarm_row *row, bool *ret_there)
{
    size_t i = 0;
    uint8_t key[9], other[9];
    row_key(row, key);
    for (; i < a->alarm_count; i++) {
        row_key(&a->alarms[i], other);
        if (memcmp(other, key, sizeof(key)) >= 0)
            break;
    }
    *ret_there = i < a->alarm_count && memcmp(other, key, sizeof(key)) == 0;
    return i;
}

static bool insert(struct apply *a, const struct alarm_row *row)
{
    bool there;
    size_t i = place(a, row, &there);
    if (there || a->alarm_count == APPLY_ALARMS_MAX)
        return there;
    memmove(&a->alarms[i + 1], &a->alarms[i], (a->alarm_count - i) * sizeof(*row));
    a->alarms[i] = *row;
    a->alarm_count++;
    return true;
}

static void add_answer(Etcdserverpb__AlarmResponse *m, struct arena *arena,
                       const struct alarm_row *row)
{
    Etcdserverpb__AlarmMember *alarm =
        MESSAGE_NEW(arena, Etcdserverpb__AlarmMember, etcdserverpb__alarm_member__descriptor);
    alarm->memberid = row->member_id;
    alarm->alarm = (Etcdserverpb__AlarmType)row->type;
    m->alarms[m->n_alarms++] = alarm;
}

static void save(struct apply *a, const struct alarm_row *row)
{
    uint8_t key[9], value[2] = {(uint8_t)row->type, (uint8_t)row->causes};
    row_key(row, key);
    mvcc_bucket_put(a->config.store, MVCC_BUCKET_ALARM, bytes_of(key, 9), bytes_of(value, 2));
}

static void activate(struct apply *a, struct alarm_row *row)
{
    bool there;
    size_t i = place(a, row, &there);
    if (there)
        row->causes |= a->alarms[i].causes;
    if (there && row->causes == a->alarms[i].causes)
        return;
    if (!insert(a, row))
        return; /* there is no room for more */
    a->alarms[i].causes = row->causes;
    save(a, row);
}

/* causes 0: whatever they are. */
static bool deactivate(struct apply *a, const struct alarm_row *row)
{
    bool there;
    size_t i = place(a, row, &there);
    if (!there)
        return false;
    if (row->causes && (a->alarms[i].causes & ~row->causes)) {
        a->alarms[i].causes &= ~row->causes;
        save(a, &a->alarms[i]);
        return false;
    }
    a->alarm_count--;
    memmove(&a->alarms[i], &a->alarms[i + 1], (a->alarm_count - i) * sizeof(*row));
    uint8_t key[9];
    row_key(row, key);
    mvcc_bucket_put(a->config.store, MVCC_BUCKET_ALARM, bytes_of(key, 9), BYTES_EMPTY);
    return true;
}

enum errc alarm_apply(struct apply *a, const Etcdserverpb__AlarmRequest *r, unsigned cause,
                      struct arena *arena, const ProtobufCMessage **ret_message)
{
    Etcdserverpb__AlarmResponse *m =
        MESSAGE_NEW(arena, Etcdserverpb__AlarmResponse, etcdserverpb__alarm_response__descriptor);
    m->alarms = arena_alloc(arena, (a->alarm_count + 1) * sizeof(Etcdserverpb__AlarmMember *));
    struct alarm_row row = {r->memberid, (int)r->alarm, cause};
    bool known = r->alarm == ETCDSERVERPB__ALARM_TYPE__NOSPACE ||
                 r->alarm == ETCDSERVERPB__ALARM_TYPE__CORRUPT;
    switch (r->action) {
    case ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET:
        for (size_t i = 0; i < a->alarm_count; i++) {
            if (r->alarm == ETCDSERVERPB__ALARM_TYPE__NONE || a->alarms[i].type == (int)r->alarm)
                add_answer(m, arena, &a->alarms[i]);
        }
        break;
    case ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE:
        if (known) {
            row.causes = cause ? cause : ALARM_CAUSE_QUOTA; /* an operator's is not the disk's */
            activate(a, &row);
            add_answer(m, arena, &row);
        }
        break;
    case ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE:
        if (known && deactivate(a, &row))
            add_answer(m, arena, &row);
        break;
    default:
        break;
    }
    m->header = message_header(arena, apply_revision(a));
    *ret_message = &m->base;
    return ERR_OK;
}

bool alarm_active(const struct apply *a, int type)
{
    for (size_t i = 0; i < a->alarm_count; i++) {
        if (a->alarms[i].type == type)
            return true;
    }
    return false;
}

bool apply_alarm_nospace(const struct apply *a)
{
    return alarm_active(a, ETCDSERVERPB__ALARM_TYPE__NOSPACE);
}

bool apply_alarm_corrupt(const struct apply *a)
{
    bool there;
    place(a, &(struct alarm_row){a->config.member_id, ETCDSERVERPB__ALARM_TYPE__CORRUPT}, &there);
    return there;
}

unsigned apply_alarm_causes(const struct apply *a, uint64_t member_id)
{
    bool there;
    struct alarm_row row = {member_id, ETCDSERVERPB__ALARM_TYPE__NOSPACE, 0};
    size_t i = place(a, &row, &there);
    return there ? a->alarms[i].causes : 0;
}

void apply_member_removed(struct apply *a, uint64_t member_id)
{
    deactivate(a,
               &(struct alarm_row){member_id, ETCDSERVERPB__ALARM_TYPE__NOSPACE, ALARM_CAUSE_DISK});
}

void apply_each_alarm(const struct apply *a,
                      void (*each)(void *ctx, uint64_t member_id, int alarm, unsigned causes),
                      void *ctx)
{
    for (size_t i = 0; i < a->alarm_count; i++)
        each(ctx, a->alarms[i].member_id, a->alarms[i].type, a->alarms[i].causes);
}

static void load_row(void *ctx, struct bytes key, struct bytes value)
{
    struct apply *a = ctx;
    unsigned causes = value.n > 1 ? value.p[1] : ALARM_CAUSE_QUOTA;
    if (key.n == 9)
        insert(a, &(struct alarm_row){get_be64(key.p + 1), key.p[0], causes});
}

enum errc alarm_load(struct apply *a, struct error *err)
{
    a->alarm_count = 0;
    return mvcc_bucket_each(a->config.store, MVCC_BUCKET_ALARM, load_row, a, err);
}
