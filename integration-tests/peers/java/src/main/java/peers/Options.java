package peers;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/** `--name value` pairs, and the standard output that carries one JSON object a line and nothing else. */
final class Options {
    private static final Gson GSON = new GsonBuilder().disableHtmlEscaping().serializeNulls().create();
    private static final PrintStream OUT =
        new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);

    private final Map<String, String> values = new HashMap<>();

    Options(String[] args) {
        // Anything a library prints goes to standard error, out of the way of the JSON lines.
        System.setOut(System.err);
        if (args.length % 2 != 0) {
            throw new IllegalArgumentException("options come in pairs: --name value");
        }
        for (int i = 0; i < args.length; i += 2) {
            values.put(args[i], args[i + 1]);
        }
    }

    String required(String name) {
        String value = values.get(name);
        if (value == null) {
            throw new IllegalArgumentException("missing option " + name);
        }
        return value;
    }

    String optional(String name, String fallback) {
        return values.getOrDefault(name, fallback);
    }

    int number(String name, int fallback) {
        String value = values.get(name);
        return value == null ? fallback : Integer.parseInt(value);
    }

    static JsonObject parse(String line) {
        return GSON.fromJson(line, JsonObject.class);
    }

    /** One line, flushed: the reader at the other end of the pipe waits for it. */
    static synchronized void print(Map<String, ?> object) {
        OUT.println(GSON.toJson(object));
        OUT.flush();
    }
}
