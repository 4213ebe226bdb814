// The JDK's two clients, which know a proxy only from their environment. Prints one response per line.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Https {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int number = 1; number < arguments.length; number += 1) {
            URI uri = URI.create(arguments[number]);
            System.out.println(switch (arguments[0]) {
                case "HttpClient" -> client.send(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofString()).body();
                case "URLConnection" -> new String(uri.toURL().openConnection().getInputStream().readAllBytes());
                default -> throw new IllegalArgumentException(arguments[0]);
            });
        }
    }
}
