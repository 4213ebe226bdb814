// The JDK's client through a route and through the forward proxy. Prints one response per line.
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpClient.Version;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;

public class Client {
    public static void main(String[] arguments) throws Exception {
        String what = arguments[0];
        String route = arguments[1];
        URI proxy = URI.create(arguments[2]);
        // HTTP_2 in cleartext requests an upgrade to h2c, and also accepts a response in HTTP/1.1.
        Version version = what.equals("http1") ? Version.HTTP_1_1 : Version.HTTP_2;
        HttpClient.Builder builder = HttpClient.newBuilder().version(version);
        if (what.equals("proxy")) {
            builder.proxy(ProxySelector.of(new InetSocketAddress(proxy.getHost(), proxy.getPort())));
        }
        HttpClient client = builder.build();
        switch (what) {
            case "http1", "http2" -> calls(client, route);
            case "proxy" -> calls(client, "http://svc.a.run.app");
            case "websocket" -> websocket(client, URI.create(route.replace("http", "ws") + "/ws"));
            default -> throw new IllegalArgumentException(what);
        }
    }

    private static void calls(HttpClient client, String base) throws Exception {
        HttpRequest get = HttpRequest.newBuilder(URI.create(base + "/java?x=1")).build();
        System.out.println(client.send(get, BodyHandlers.ofString()).body());

        byte[] bytes = new byte[3_000_000];
        Arrays.fill(bytes, (byte) 'j');
        HttpRequest post = HttpRequest.newBuilder(URI.create(base + "/java"))
            .POST(BodyPublishers.ofByteArray(bytes)).build();
        System.out.println(client.send(post, BodyHandlers.ofString()).body());

        // Without a length: chunks in HTTP/1.1.
        InputStream source = new java.io.ByteArrayInputStream(bytes);
        HttpRequest chunked = HttpRequest.newBuilder(URI.create(base + "/java"))
            .PUT(BodyPublishers.ofInputStream(() -> source)).expectContinue(true).build();
        System.out.println(client.send(chunked, BodyHandlers.ofString()).body());

        ArrayList<CompletableFuture<String>> many = new ArrayList<>();
        for (int number = 0; number < 40; number += 1) {
            HttpRequest one = HttpRequest.newBuilder(URI.create(base + "/java/" + number)).build();
            many.add(client.sendAsync(one, BodyHandlers.ofString()).thenApply(response -> response.body()));
        }
        for (CompletableFuture<String> one : many) {
            System.out.println(one.get(60, TimeUnit.SECONDS));
        }
    }

    private static void websocket(HttpClient client, URI uri) throws Exception {
        CompletableFuture<String> heard = new CompletableFuture<>();
        WebSocket socket = client.newWebSocketBuilder().buildAsync(uri, new WebSocket.Listener() {
            @Override
            public CompletionStage<?> onText(WebSocket from, CharSequence text, boolean last) {
                heard.complete(text.toString());
                return null;
            }
        }).get(60, TimeUnit.SECONDS);
        socket.sendText("from java", true).get(60, TimeUnit.SECONDS);
        System.out.println("\"" + heard.get(60, TimeUnit.SECONDS) + "\"");
        socket.abort();
    }
}
