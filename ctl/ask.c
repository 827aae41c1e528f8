/* Asking and waiting for the answer: most commands are a few questions, one after another. */
#include <stdio.h>
#include <stdlib.h>

#include "ctl/ctl.h"
#include "lib/base/memory.h"

struct waiting {
    struct ctl_answer *answer;
    bool done;
};

void ctl_wait(struct ctl *ctl, const bool *flag)
{
    while (!*flag)
        uv_run(&ctl->loop, UV_RUN_ONCE);
}

/* The message is the call's until this returns: it is kept as a copy. */
static void on_answer(void *ctx, const struct client_result *result)
{
    struct waiting *w = ctx;
    w->done = true;
    w->answer->code = result->code;
    if (result->code != ERR_OK) {
        w->answer->text =
            xstrdup(result->text && *result->text ? result->text : errc_text(result->code));
        return;
    }
    size_t n = protobuf_c_message_get_packed_size(result->message);
    uint8_t *packed = xmalloc(n + 1);
    protobuf_c_message_pack(result->message, packed);
    w->answer->message = protobuf_c_message_unpack(result->message->descriptor, NULL, n, packed);
    free(packed);
}

void ctl_ask(struct ctl *ctl, struct client *c, const char *path, const ProtobufCMessage *request,
             const ProtobufCMessageDescriptor *response, bool read_only,
             struct ctl_answer *ret_answer)
{
    struct waiting w = {ret_answer, false};
    *ret_answer = (struct ctl_answer){0};
    client_unary(c, path, request, response, read_only, ctl->timeout_ms, on_answer, &w);
    ctl_wait(ctl, &w.done);
}

void ctl_answer_free(struct ctl_answer *a)
{
    free(a->text);
    if (a->message)
        protobuf_c_message_free_unpacked(a->message, NULL);
}

bool ctl_answer_failed(struct ctl *ctl, const struct ctl_answer *a)
{
    return ctl_failed(ctl, &(struct client_result){.code = a->code, .text = a->text});
}

bool ctl_take_cluster_flag(struct ctl *ctl)
{
    if (!ctl_flag(ctl, "cluster", NULL))
        return true;
    Etcdserverpb__MemberListRequest r = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    struct ctl_answer a;
    ctl_ask(ctl, ctl->client, "/etcdserverpb.Cluster/MemberList", &r.base,
            &etcdserverpb__member_list_response__descriptor, true, &a);
    bool ok = !ctl_answer_failed(ctl, &a);
    const Etcdserverpb__MemberListResponse *list = (const void *)a.message;
    if (ok) {
        while (ctl->endpoint_count > 0)
            free(ctl->endpoints[--ctl->endpoint_count]);
        for (size_t i = 0; i < list->n_members; i++)
            for (size_t k = 0; k < list->members[i]->n_clienturls; k++)
                if (ctl->endpoint_count < CLIENT_ENDPOINTS_MAX)
                    ctl->endpoints[ctl->endpoint_count++] =
                        xstrdup(list->members[i]->clienturls[k]);
    }
    ctl_answer_free(&a);
    return ok;
}
