// Java's HttpClient, with a client certificate or without; one line of JSON for each answer.

import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.zip.GZIPInputStream;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Client {
  /** Arguments: BASE-URL HTTP_2|HTTP_1_1 CA.crt CLIENT.p12|-. */
  public static void main(String[] args) throws Exception {
    var client =
        HttpClient.newBuilder()
            .version(HttpClient.Version.valueOf(args[1]))
            .connectTimeout(Duration.ofSeconds(20))
            .sslContext(context(args[2], args[3]))
            .build();
    if (args[3].equals("-")) {
      // Who is refused for the want of a certificate has to connect anew: one is enough.
      print(client.send(request(args[0] + "/").build(), BodyHandlers.ofByteArray()));
      return;
    }
    // Many at once, then one with a body, then one that may be compressed.
    List<CompletableFuture<HttpResponse<byte[]>>> open = new ArrayList<>();
    for (int index = 0; index < 20; index++) {
      open.add(client.sendAsync(request(args[0] + "/?" + index).build(), BodyHandlers.ofByteArray()));
    }
    for (var answer : open) {
      print(answer.get());
    }
    var body = BodyPublishers.ofByteArray(new byte[1 << 20]);
    print(client.send(request(args[0] + "/body").POST(body).build(), BodyHandlers.ofByteArray()));
    var zipped = request(args[0] + "/zip").header("Accept-Encoding", "gzip").build();
    print(client.send(zipped, BodyHandlers.ofByteArray()));
  }

  private static HttpRequest.Builder request(String url) {
    return HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(30));
  }

  private static SSLContext context(String ca, String p12) throws Exception {
    var trusted = KeyStore.getInstance("PKCS12");
    trusted.load(null, null);
    try (var in = Files.newInputStream(Path.of(ca))) {
      var factory = CertificateFactory.getInstance("X.509");
      trusted.setCertificateEntry("ca", factory.generateCertificate(in));
    }
    var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(trusted);
    var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    var own = KeyStore.getInstance("PKCS12");
    own.load(null, null);
    if (!p12.equals("-")) {
      try (var in = Files.newInputStream(Path.of(p12))) {
        own.load(in, "x".toCharArray());
      }
    }
    keys.init(own, "x".toCharArray());
    var context = SSLContext.getInstance("TLS");
    context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
    return context;
  }

  private static void print(HttpResponse<byte[]> answer) throws Exception {
    var coding = answer.headers().firstValue("content-encoding").orElse("-");
    var body = answer.body();
    if (coding.equals("gzip")) {
      body = new GZIPInputStream(new ByteArrayInputStream(body)).readAllBytes();
    }
    var text = new String(body, StandardCharsets.UTF_8).strip();
    // Of a page, its code is enough: what is in it is no JSON.
    var told = text.startsWith("{") ? text : "\"" + text.replaceAll("(?s).*<h1>([0-9.]+) .*", "$1") + "\"";
    System.out.printf(
        "{\"version\": \"%s\", \"status\": %d, \"coding\": \"%s\", \"body\": %s}%n",
        answer.version(), answer.statusCode(), coding, told);
  }
}
