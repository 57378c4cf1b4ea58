import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;

/**
 * What the tests want of a broker's administrator and librdkafka's binding does not offer. Run from its source.
 *
 *   KafkaAdmin HOST:PORT allow PRINCIPAL PREFIX      everything with the topics and groups whose names begin so
 *   KafkaAdmin HOST:PORT forbid PRINCIPAL            takes all of that back
 *   KafkaAdmin HOST:PORT password USER PASSWORD      by which SCRAM-SHA-512 lets the user in from now on
 */
class KafkaAdmin {
    public static void main(String[] arguments) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", arguments[0]))) {
            switch (arguments[1]) {
                case "allow" -> {
                    var entry =
                        new AccessControlEntry(arguments[2], "*", AclOperation.ALL, AclPermissionType.ALLOW);
                    var bindings = List.of(ResourceType.TOPIC, ResourceType.GROUP).stream()
                        .map(type -> new ResourcePattern(type, arguments[3], PatternType.PREFIXED))
                        .map(pattern -> new AclBinding(pattern, entry))
                        .toList();
                    admin.createAcls(bindings).all().get();
                }
                case "forbid" -> {
                    var entry = new AccessControlEntryFilter(
                        arguments[2], null, AclOperation.ANY, AclPermissionType.ANY);
                    admin.deleteAcls(List.of(new AclBindingFilter(ResourcePatternFilter.ANY, entry))).all().get();
                }
                case "password" -> {
                    var info = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096);
                    var change = new UserScramCredentialUpsertion(arguments[2], info, arguments[3]);
                    admin.alterUserScramCredentials(List.of(change)).all().get();
                }
                default -> throw new IllegalArgumentException(arguments[1]);
            }
        }
    }
}
