/* Lines of the access log out of any address and User-Agent: one line of ASCII that is a JSON object whose fields are what was put
 * in, and no value of `__sign` or `token` in it. Control takes it for one; and any bytes for what they are. */
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "proxy/access_line.h"

static void check(bool ok)
{
	if (!ok)
		abort();
}

/* The value of each plain `token` and `__sign` of the query is hidden. */
static void check_hidden(const char *path)
{
	const char *query = strchr(path, '?');

	for (const char *p = query; p && *p; p = strpbrk(p + 1, "&;?")) {
		for (const char *const *name = (const char *const[]){"token=", "__sign=", NULL}; *name; name++) {
			const char *value = p + 1 + strlen(*name);
			if (strncmp(p + 1, *name, strlen(*name)) == 0)
				check(strncmp(value, "***", 3) == 0 && (!value[3] || strchr("&;?", value[3])));
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct buf b;
	size_t half = size ? data[0] * (size - 1) / 255 : 0;
	struct str path = {(const char *)data + 1, half},
		   agent = {(const char *)data + 1 + half, size ? size - 1 - half : 0};

	if (size < 1)
		return 0;
	const struct access_entry e = {.space = STR("a/b"), .path = path, .agent = agent, .status = 200};
	buf_clear(&b);
	access_line(&b, &e);
	check(access_lines_ok((struct str){b.data, b.len}, 1));
	access_lines_ok((struct str){(const char *)data + 1, size - 1}, data[0]);
	for (size_t i = 0; i < b.len; i++)
		check((b.data[i] >= 0x20 && b.data[i] < 0x7f) || (b.data[i] == '\n' && i == b.len - 1));
	json_t *j = json_loadb(b.data, b.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
	check(json_is_object(j) && strcmp(json_string_value(json_object_get(j, "space")), "a/b") == 0);
	const char *written = json_string_value(json_object_get(j, "path"));
	if (written && strlen(written) == json_string_length(json_object_get(j, "path")))
		check_hidden(written);
	json_decref(j);
	return 0;
}
