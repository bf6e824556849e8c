package peers;

import org.apache.rocketmq.client.ClientConfig;

/** `--namespace` (a prefix of names) and `--namespace-v2` (fields of requests, 5.x only). */
final class Namespaces {
    private Namespaces() {
    }

    @SuppressWarnings("deprecation")
    static void set(ClientConfig client, Options options) throws ReflectiveOperationException {
        String prefix = options.optional("--namespace", "");
        if (!prefix.isEmpty()) {
            client.setNamespace(prefix);
        }
        String fields = options.optional("--namespace-v2", "");
        if (!fields.isEmpty()) {
            // The 4.9 client, which this is compiled against too, does not have it.
            ClientConfig.class.getMethod("setNamespaceV2", String.class).invoke(client, fields);
        }
    }
}
